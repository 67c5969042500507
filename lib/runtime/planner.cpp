#include "lib/runtime/planner.h"

#include <algorithm>
#include <set>

#include "lib/base/error.h"
#include "lib/onnx/function_body.h"
#include "lib/runtime/expanded.h"
#include "lib/runtime/fold.h"
#include "lib/runtime/fusions/quantized_operator.h"

namespace infopt {
namespace {
constexpr const char* kOnnxBody = "the operator's body as ONNX defines it";
constexpr const char* kQuantizedBody = "dequantized, computed and quantized";
}  // namespace

Planner::Planner(const Plan& plan, const Graph& graph, const SessionOptions& options, const std::vector<ValueId>& fetches)
    : plan_(plan), graph_(graph), options_(options), fetches_(fetches), seen_(graph.value_capacity()), foldable_(graph.value_capacity()),
      demanded_(graph.value_capacity()), matched_(graph.node_capacity()), made_(graph.value_capacity()), shape_values_(graph.value_capacity()),
      position_(graph.node_capacity()) {
  for (ValueId v : graph.outputs()) see(v);
  for (ValueId v : fetches) see(v);
  for (ValueId v : options.taps) see(v);
  for (size_t i = 0; i < graph.order().size(); ++i) {
    const Node& node = graph.node(graph.order()[i]);
    position_[static_cast<size_t>(node.id)] = static_cast<int64_t>(i);
    for (ValueId v : node.captures) see(v);
  }
  if (options.fold) find_foldable();
}

void Planner::find_foldable() {
  std::vector<bool> tapped(graph_.value_capacity());
  for (ValueId v : options_.taps) tapped[static_cast<size_t>(v)] = true;
  for (NodeId id : graph_.order()) {
    const Node& node = graph_.node(id);
    if (!node.captures.empty() || !node.bodies().empty()) continue;
    const OpDef* op = find_op(node.domain, node.op, plan_.opset(node.domain));
    if (!op || op->nondeterministic) continue;
    const bool fixed = std::all_of(node.inputs.begin(), node.inputs.end(), [&](ValueId v) { return v == kNone || graph_.value(v).is_constant() || foldable(v); });
    const bool watched = std::any_of(node.outputs.begin(), node.outputs.end(), [&](ValueId v) { return v != kNone && tapped[static_cast<size_t>(v)]; });
    if (!fixed || watched) continue;
    for (ValueId v : node.outputs)
      if (v != kNone) foldable_[static_cast<size_t>(v)] = true;
  }
}

const Tensor* Planner::constant(ValueId value) {
  if (value == kNone) return nullptr;
  if (const Tensor* t = graph_.constant(value)) return t;
  if (!foldable(value)) return nullptr;
  if (!known_.count(value)) {
    // Everything that the value is made from, earliest first.
    std::vector<NodeId> open{graph_.value(value).producer}, nodes;
    std::vector<bool> visited(graph_.node_capacity());
    while (!open.empty()) {
      const NodeId id = open.back();
      open.pop_back();
      if (visited[static_cast<size_t>(id)]) continue;
      visited[static_cast<size_t>(id)] = true;
      nodes.push_back(id);
      for (ValueId v : graph_.node(id).inputs)
        if (foldable(v) && !known_.count(v)) open.push_back(graph_.value(v).producer);
    }
    std::sort(nodes.begin(), nodes.end(), [&](NodeId a, NodeId b) { return position_[static_cast<size_t>(a)] < position_[static_cast<size_t>(b)]; });
    for (NodeId id : nodes) fold(graph_.node(id));
  }
  const auto it = known_.find(value);
  return it == known_.end() ? nullptr : &it->second;
}

/// Computes the node's outputs, or marks them as not foldable where it can't.
void Planner::fold(const Node& node) {
  std::vector<Tensor> inputs, outputs;
  bool whole = true;
  for (ValueId v : node.inputs) {
    if (v == kNone) {
      inputs.emplace_back();
      continue;
    }
    const auto it = known_.find(v);
    const Tensor* t = it != known_.end() ? &it->second : graph_.constant(v);
    whole = whole && t;
    if (t) inputs.push_back(*t);
  }
  if (whole) {
    const int64_t version = plan_.opset(node.domain);
    try {
      const auto kernel = find_op(node.domain, node.op, version)->cpu({graph_, node, version, {}, this});
      outputs = compute_constant(*kernel, node, inputs);
    } catch (const Error&) {
    }
  }
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == kNone) continue;
    if (outputs.empty()) foldable_[static_cast<size_t>(node.outputs[i])] = false;
    else known_[node.outputs[i]] = std::move(outputs[i]);
  }
}

bool Planner::taken(const Node& node) {
  if (!matched_[static_cast<size_t>(node.id)]) {
    matched_[static_cast<size_t>(node.id)] = true;
    if (auto step = fuse(*this, node)) fused_.emplace(node.id, std::move(*step));
  }
  return fused_.count(node.id) > 0;
}

/// Some output is wanted and no other node's step makes it.
bool Planner::needed(const Node& node) const {
  return std::any_of(node.outputs.begin(), node.outputs.end(), [&](ValueId v) { return v != kNone && demanded_[static_cast<size_t>(v)] && !made_[static_cast<size_t>(v)]; });
}

/// From the fetches back: what a fused step doesn't read is not needed.
void Planner::choose_steps() {
  auto demand = [&](ValueId v) { if (v != kNone) demanded_[static_cast<size_t>(v)] = true; };
  for (ValueId v : fetches_) demand(v);
  for (ValueId v : options_.taps) demand(v);
  for (auto it = graph_.order().rbegin(); it != graph_.order().rend(); ++it) {
    const Node& node = graph_.node(*it);
    if (!needed(node)) continue;
    if (options_.fuse && !foldable(node.outputs[0])) {
      if (!taken(node))
        if (auto chain = fuse_chain(*this, node)) fused_.emplace(node.id, std::move(*chain));
      if (const auto step = fused_.find(node.id); step != fused_.end()) {
        for (ValueId v : step->second.inputs) demand(v);
        for (ValueId v : step->second.also) made_[static_cast<size_t>(v)] = true;
        continue;
      }
    }
    for (ValueId v : node.inputs) demand(v);
    for (ValueId v : node.captures) demand(v);
  }
}

bool Planner::of_shapes(const Node& node) const {
  constexpr int64_t kMostOfShapes = 1024;
  static const std::set<std::string> kOps{"Gather", "Concat", "Slice", "Squeeze", "Unsqueeze", "Cast", "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Floor", "Ceil", "Sqrt", "Equal", "Greater", "Less",
                                          "Where", "Min", "Max", "Identity", "Reshape", "Split", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceSum", "Not", "And", "Or", "Abs", "Range", "Flatten"};
  if (!node.domain.empty()) return false;
  if (node.op == "Shape" || node.op == "Size") return true;
  bool any = false;
  for (ValueId v : node.inputs) {
    if (v == kNone) continue;
    if (graph_.value(v).is_constant() || foldable(v)) {
      const Tensor* t = graph_.constant(v);
      if (t && t->size() > kMostOfShapes) return false;  // a table, not a shape
      continue;
    }
    if (!shape_values_[static_cast<size_t>(v)]) return false;
    any = true;
  }
  return any && kOps.count(node.op) > 0;
}

std::unique_ptr<Kernel> Planner::make_kernel(const Node& node) {
  const int64_t version = plan_.opset(node.domain);
  const KernelSpec spec{graph_, node, version, {}, this};
  if (options_.device) return options_.device->kernel(spec);
  if (const OpDef* op = find_op(node.domain, node.op, version)) return op->cpu(spec);
  throw Error(ErrorKind::Unsupported, "the operator " + node.op + " can't be run by infopt");
}

/// Null where the node is to run on the CPU; step.refusal then says why.
std::unique_ptr<Kernel> Planner::make_device_kernel(const Node& node, PlanStep& step) {
  if (of_shapes(node)) {
    step.of_shapes = true;
    step.shape_only = node.op == "Shape" || node.op == "Size";
    for (ValueId v : node.outputs)
      if (v != kNone) shape_values_[static_cast<size_t>(v)] = true;
    return nullptr;
  }
  std::string reason;
  try {
    return make_kernel(node);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::Unsupported) throw;
    reason = e.message();
  }
  try {
    const SessionOptions options{.device = options_.device, .fallback = false};
    if (auto body = expand_function(graph_, node.id)) return make_expanded(std::move(body), &plan_, options, kOnnxBody);
    if (auto body = quantized_body(graph_, *this, node)) return make_expanded(std::move(body->graph), &plan_, options, kQuantizedBody);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::Unsupported) throw;
  }
  if (!options_.fallback) throw Error(ErrorKind::Unsupported, "it can't run on the device: " + reason);
  step.refusal = "on the CPU: " + reason;
  return nullptr;
}

std::unique_ptr<Kernel> Planner::make_kernel_for(const Node& node, PlanStep& step) {
  const int64_t version = plan_.opset(node.domain);
  if (options_.device)
    if (auto kernel = make_device_kernel(node, step)) return kernel;
  if (const OpDef* op = find_op(node.domain, node.op, version)) return op->cpu({graph_, node, version, {}, this});
  const SessionOptions options{.fuse = options_.fuse, .fold = options_.fold};
  if (auto body = expand_function(graph_, node.id)) return make_expanded(std::move(body), &plan_, options, kOnnxBody);
  if (auto body = quantized_body(graph_, *this, node)) return make_expanded(std::move(body->graph), &plan_, options, kQuantizedBody);
  const std::string full = (node.domain.empty() ? "" : node.domain + ".") + node.op;
  throw Error(ErrorKind::Unsupported, "the operator " + full + " (opset " + std::to_string(version) + ") can't be run by infopt");
}

std::vector<PlanStep> Planner::make_steps() {
  choose_steps();
  std::vector<PlanStep> steps;
  for (NodeId id : graph_.order()) {
    const Node& node = graph_.node(id);
    if (!needed(node)) continue;
    const bool known = std::all_of(node.outputs.begin(), node.outputs.end(), [&](ValueId v) { return v == kNone || (foldable(v) && constant(v)); });
    if (known && !node.outputs.empty()) continue;
    PlanStep step;
    step.node = id;
    step.inputs = node.inputs;
    step.outputs = node.outputs;
    try {
      if (const auto it = fused_.find(id); it != fused_.end()) {
        step.inputs = it->second.inputs;
        step.kernel = std::move(it->second.kernel);
        step.covers = std::move(it->second.covers);
        step.outputs.insert(step.outputs.end(), it->second.also.begin(), it->second.also.end());
        if (it->second.named != kNone) step.node = it->second.named;
        step.covers.push_back(id);
        std::sort(step.covers.begin(), step.covers.end());
        step.covers.erase(std::unique(step.covers.begin(), step.covers.end()), step.covers.end());
        step.covers.erase(std::remove(step.covers.begin(), step.covers.end(), step.node), step.covers.end());
      } else {
        step.captures = node.captures;
        step.kernel = make_kernel_for(node, step);
        SessionOptions inside{.fuse = options_.fuse, .fold = options_.fold};
        if (step.kernel->on_device()) inside.device = options_.device, inside.fallback = options_.fallback;
        for (const auto& body : node.bodies()) step.bodies.push_back(std::make_unique<Plan>(*body, inside, &plan_));
      }
    } catch (const Error& e) {
      throw e.within(graph_.label(id));
    }
    if (const auto it = refusals_.find(step.node); it != refusals_.end() && step.refusal.empty()) step.refusal = it->second;
    steps.push_back(std::move(step));
  }
  return steps;
}

std::vector<std::pair<ValueId, Tensor>> Planner::constants_of(const std::vector<PlanStep>& steps) {
  std::vector<bool> read(graph_.value_capacity());
  auto mark = [&](const std::vector<ValueId>& values) {
    for (ValueId v : values)
      if (v != kNone) read[static_cast<size_t>(v)] = true;
  };
  for (const PlanStep& s : steps) mark(s.inputs), mark(s.captures);
  mark(fetches_);
  std::vector<std::pair<ValueId, Tensor>> out;
  for (size_t v = 0; v < read.size(); ++v) {
    const ValueId id = static_cast<ValueId>(v);
    if (!graph_.value_alive(id)) continue;
    const Value& value = graph_.value(id);
    if (value.outer != kNone) continue;
    // A graph input's default stays, read or not: the run may replace it.
    if (value.constant.defined() && (read[v] || value.graph_input)) out.emplace_back(id, value.constant);
    else if (read[v] && foldable(id))
      if (const Tensor* t = constant(id)) out.emplace_back(id, *t);
  }
  return out;
}

}  // namespace infopt
