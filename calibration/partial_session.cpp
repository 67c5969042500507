#include "calibration/partial_session.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/onnx/function_body.h"
#include "lib/ops/op.h"

namespace infopt {
namespace {

/// The first operator of the graph, or of its nodes' bodies, that has neither a kernel nor a standard body; empty where all have.
std::string unknown_operator(const Graph& graph, const Node& n, const Graph& model) {
  const int64_t own = graph.opset(n.domain), version = own ? own : model.opset(n.domain);
  if (!find_op(n.domain, n.op, version) && !expand_function(graph, n.id)) return (n.domain.empty() ? "" : n.domain + ".") + n.op;
  for (const auto& body : n.bodies())
    for (NodeId inner : body->order())
      if (std::string name = unknown_operator(*body, body->node(inner), model); !name.empty()) return name;
  return {};
}

bool has_label(const Graph& graph, NodeId id, const std::string& where) {
  const std::string label = graph.label(id);
  if (where == label || where.starts_with(label + ": ")) return true;
  for (const auto& body : graph.node(id).bodies())
    for (NodeId inner : body->order())
      if (has_label(*body, inner, where)) return true;
  return false;
}

}  // namespace

PartialSession::PartialSession(const Graph& graph, SessionOptions options, const Sample* probe)
    : graph_(graph), options_(std::move(options)), blocked_(graph.node_capacity()), computed_(graph.value_capacity(), true) {
  for (size_t i = 0; i < graph.outputs().size(); ++i)
    if (graph.value(graph.outputs()[i]).type.opaque.empty()) fetched_.push_back(i);
  for (bool first = true;; first = false) {
    try {
      open();
      if (probe && session_) session_->run(probe->inputs);
      return;
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::Unsupported) throw;
      if (first) find_unknown();
      if (!(first && !obstacles_.empty()) && !block(e)) throw;
      find_computed();
    }
  }
}

void PartialSession::open() {
  session_.reset();
  SessionOptions options = options_;
  std::erase_if(options.taps, [&](ValueId v) { return !computes(v); });
  options.fetches.clear();
  for (size_t i : fetched_) options.fetches.push_back(graph_.outputs()[i]);
  if (options.fetches.empty() && !options.taps.empty()) options.fetches = {options.taps.front()};
  if (!options.fetches.empty()) session_ = std::make_unique<Session>(graph_, std::move(options));
}

void PartialSession::find_unknown() {
  std::map<std::string, std::pair<int64_t, std::string>> unknown;  // how many, and the first one's label
  for (NodeId id : graph_.order()) {
    const std::string op = unknown_operator(graph_, graph_.node(id), graph_);
    if (op.empty()) continue;
    blocked_[static_cast<size_t>(id)] = true;
    auto& entry = unknown[op];
    if (entry.first++ == 0) entry.second = graph_.label(id);
  }
  for (const auto& [op, entry] : unknown)
    obstacles_.push_back("the operator " + op + " ('" + entry.second + "'" + (entry.first > 1 ? " and " + std::to_string(entry.first - 1) + " more" : "") + ") can't be run by infopt");
}

/// Leaves out the node that an error names; false where none fits.
bool PartialSession::block(const Error& error) {
  bool any = false;
  for (NodeId id : graph_.order()) {
    if (blocked_[static_cast<size_t>(id)] || !has_label(graph_, id, error.where())) continue;
    blocked_[static_cast<size_t>(id)] = any = true;
  }
  if (any) obstacles_.emplace_back(error.what());
  return any;
}

void PartialSession::find_computed() {
  for (NodeId id : graph_.order()) {
    const Node& n = graph_.node(id);
    auto missing = [&](ValueId v) { return v != kNone && !computes(v); };
    const bool lost = blocked_[static_cast<size_t>(id)] || std::any_of(n.inputs.begin(), n.inputs.end(), missing) || std::any_of(n.captures.begin(), n.captures.end(), missing);
    for (ValueId o : n.outputs)
      if (o != kNone && lost) computed_[static_cast<size_t>(o)] = false;
  }
  std::erase_if(fetched_, [&](size_t i) { return !computes(graph_.outputs()[i]); });
}

std::vector<Tensor> PartialSession::placed(std::vector<Tensor> computed) const {
  std::vector<Tensor> outputs(graph_.outputs().size());
  for (size_t i = 0; session_ && i < fetched_.size(); ++i) outputs[fetched_[i]] = std::move(computed[i]);
  return outputs;
}

std::vector<Tensor> PartialSession::run(const std::map<std::string, Tensor>& inputs, const Tap& tap) const { return placed(session_ ? session_->run(inputs, tap) : std::vector<Tensor>()); }
std::vector<Tensor> PartialSession::run(const std::map<std::string, Tensor>& inputs, SummaryTap& tap) const { return placed(session_ ? session_->run(inputs, tap) : std::vector<Tensor>()); }

PartialRun run_partially(const Graph& graph, const SessionOptions& options, const Sample& sample, const Tap& tap) {
  auto attempt = [&](const Sample* probe) {
    const PartialSession session(graph, options, probe);
    return PartialRun{session.run(sample.inputs, tap), session.obstacles()};
  };
  try {
    return attempt(nullptr);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::Unsupported) throw;
    return attempt(&sample);
  }
}

std::string listed(const std::vector<std::string>& items) {
  constexpr size_t kMost = 3;
  std::string text;
  for (size_t i = 0; i < items.size() && i < kMost; ++i) text += (i == 0 ? "" : i + 1 == items.size() ? " and " : ", ") + items[i];
  return items.size() > kMost ? text + " and " + std::to_string(items.size() - kMost) + " more" : text;
}

}  // namespace infopt
