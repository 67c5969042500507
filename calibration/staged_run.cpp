#include "calibration/staged_run.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "calibration/tensor_store.h"
#include "lib/base/error.h"
#include "lib/base/threads.h"
#include "lib/ir/edit.h"
#include "lib/runtime/session.h"

namespace infopt {
namespace {

/// What nodes are made from, seen from some values back to those that are given.
std::vector<bool> nodes_behind(const Graph& graph, const std::vector<ValueId>& values, const std::vector<bool>& given) {
  std::vector<bool> behind(graph.node_capacity());
  std::vector<ValueId> open = values;
  while (!open.empty()) {
    const ValueId v = open.back();
    open.pop_back();
    const Node* n = v == kNone || (static_cast<size_t>(v) < given.size() && given[static_cast<size_t>(v)]) ? nullptr : graph.producer(v);
    if (!n || behind[static_cast<size_t>(n->id)]) continue;
    behind[static_cast<size_t>(n->id)] = true;
    open.insert(open.end(), n->inputs.begin(), n->inputs.end());
    open.insert(open.end(), n->captures.begin(), n->captures.end());
  }
  return behind;
}

std::vector<ValueId> inputs_of(const Node& n) {
  std::vector<ValueId> all = n.inputs;
  all.insert(all.end(), n.captures.begin(), n.captures.end());
  return all;
}

}  // namespace

std::shared_ptr<Graph> graph_behind(const Graph& graph, const std::vector<ValueId>& given) {
  const std::shared_ptr<Graph> part = graph.clone();
  GraphEdit edit(*part);
  for (ValueId v : given) {
    const Node* maker = part->producer(v);
    if (!maker) continue;
    const NodeId id = maker->id;
    edit.replace_output(id, static_cast<size_t>(part->value(v).output_index), edit.add_value());
    edit.set_graph_input(v, true);
  }
  return part;
}

struct StagedRun::Impl {
  const Graph& graph;
  std::vector<ValueId> targets;
  StagedOptions options;
  TensorStore store;
  std::vector<std::unordered_map<ValueId, int64_t>> samples;  ///< tickets of what is held, the same values for each
  std::vector<std::string> where;
  std::vector<bool> known;    ///< by value: held
  std::vector<bool> tensors;  ///< by value: it was a tensor in the first sample's run; values that came later are taken for such

  Impl(const Graph& g, std::vector<ValueId> t, StagedOptions o) : graph(g), targets(std::move(t)), options(o), store(o.memory) {}

  bool is_known(ValueId v) const { return v != kNone && static_cast<size_t>(v) < known.size() && known[static_cast<size_t>(v)]; }
  void set_known(ValueId v, bool to) {
    if (static_cast<size_t>(v) >= known.size()) known.resize(graph.value_capacity());
    known[static_cast<size_t>(v)] = to;
  }

  /// Cheap, and larger than what it is made from; or no tensor, which can't be held.
  bool made_again(const Node& n) const {
    if (n.is("DequantizeLinear") || n.is("Shape") || n.is("Constant")) return true;
    return std::any_of(n.outputs.begin(), n.outputs.end(), [&](ValueId v) { return v != kNone && static_cast<size_t>(v) < tensors.size() && !tensors[static_cast<size_t>(v)]; });
  }

  /// What the targets ahead will read of what is known once `done` nodes have been computed.
  std::vector<ValueId> frontier(const std::vector<bool>& done) const {
    std::vector<ValueId> values;
    std::vector<bool> seen(graph.value_capacity()), given(graph.value_capacity());
    for (size_t v = 0; v < given.size(); ++v) {
      const auto id = static_cast<ValueId>(v);
      if (!graph.value_alive(id)) continue;
      const Node* n = graph.producer(id);
      given[v] = is_known(id) || (n && done[static_cast<size_t>(n->id)] && !made_again(*n));
    }
    const std::vector<bool> ahead = nodes_behind(graph, targets, given);
    auto take = [&](ValueId v) {
      if (v == kNone || seen[static_cast<size_t>(v)] || !given[static_cast<size_t>(v)]) return;
      seen[static_cast<size_t>(v)] = true;
      values.push_back(v);
    };
    for (NodeId id : graph.order())
      if (ahead[static_cast<size_t>(id)])
        for (ValueId v : inputs_of(graph.node(id))) take(v);
    for (ValueId v : targets) take(v);  // computed on the way to others
    return values;
  }

  /// What nodes compute `values` of what is held, and which of it they read.
  std::vector<ValueId> given_for(const Graph& on, const std::vector<ValueId>& values) const {
    const std::vector<bool> run = nodes_behind(on, values, known);
    std::vector<ValueId> given;
    std::vector<bool> seen(on.value_capacity());
    auto take = [&](ValueId v) {
      if (!is_known(v) || seen[static_cast<size_t>(v)]) return;
      seen[static_cast<size_t>(v)] = true;
      given.push_back(v);
    };
    for (NodeId id : on.order())
      if (run[static_cast<size_t>(id)])
        for (ValueId v : inputs_of(on.node(id))) take(v);
    return given;
  }

  Tensor held(int64_t sample, ValueId v) const { return store.get(samples[static_cast<size_t>(sample)].at(v)); }

  using Take = std::function<void(int64_t sample, std::vector<Tensor> values)>;
  /// Runs what makes `values`; those that are held or constant are just fetched.
  void run(const Graph& on, const std::vector<ValueId>& values, const Take& take) const {
    const std::vector<ValueId> given = given_for(on, values);
    const std::shared_ptr<Graph> part = graph_behind(on, given);
    SessionOptions o;
    for (ValueId v : values)
      if (!is_known(v) && on.producer(v)) o.fetches.push_back(v);
    const auto session = o.fetches.empty() ? nullptr : std::make_unique<Session>(*part, o);
    parallel_for(static_cast<int64_t>(samples.size()), options.threads, [&](int64_t sample, int) {
      std::unordered_map<ValueId, Tensor> inputs;
      for (ValueId v : given) inputs.emplace(v, held(sample, v));
      std::vector<Tensor> made;
      try {
        if (session) made = session->run(inputs);
      } catch (const Error& e) {
        throw e.within(where[static_cast<size_t>(sample)]);
      }
      std::vector<Tensor> out;
      size_t at = 0;
      for (ValueId v : values) {
        if (is_known(v)) out.push_back(held(sample, v));
        else if (on.producer(v)) out.push_back(std::move(made[at++]));
        else if (on.value(v).constant.defined()) out.push_back(on.value(v).constant);
        else throw Error(ErrorKind::Defect, "a value is asked for that is no longer held", on.value(v).name);
      }
      take(sample, std::move(out));
    });
  }
};

StagedRun::StagedRun(const Graph& graph, Calibration& calibration, std::vector<ValueId> targets, StagedOptions options)
    : impl_(std::make_unique<Impl>(graph, std::move(targets), options)) {
  Impl& m = *impl_;
  for (const Observed& o : calibration.observe(graph)) m.tensors.push_back(o.dtype != DType::Undefined);
  m.known.assign(graph.value_capacity(), false);
  const std::vector<bool> behind = nodes_behind(graph, m.targets, {});
  std::vector<ValueId> inputs;
  for (ValueId v : graph.inputs()) {
    const auto& uses = graph.value(v).uses;
    const bool read = std::any_of(uses.begin(), uses.end(), [&](const Use& u) { return u.node != kNone && behind[static_cast<size_t>(u.node)]; });
    if (read || std::find(m.targets.begin(), m.targets.end(), v) != m.targets.end()) inputs.push_back(v);
  }
  DataSet& data = calibration.data();
  data.reset();
  Sample sample;
  int64_t skipped = 0;
  while ((options.samples == 0 || static_cast<int64_t>(m.samples.size()) < options.samples) && data.next(sample)) {
    if (skipped < options.skip) {
      ++skipped;
      continue;
    }
    auto& held = m.samples.emplace_back();
    m.where.push_back(sample.where);
    for (ValueId v : inputs) {
      const auto it = sample.inputs.find(graph.value(v).name);
      if (it != sample.inputs.end()) held[v] = m.store.put(it->second);
      else if (graph.value(v).constant.defined()) held[v] = m.store.put(graph.value(v).constant);
      else throw Error(ErrorKind::Malformed, "the model's input '" + graph.value(v).name + "' was not given", sample.where);
    }
  }
  for (ValueId v : inputs) m.set_known(v, true);
}

StagedRun::~StagedRun() = default;
int64_t StagedRun::samples() const { return static_cast<int64_t>(impl_->samples.size()); }
int64_t StagedRun::held() const { return impl_->store.held(); }
int64_t StagedRun::spilled() const { return impl_->store.spilled(); }

void StagedRun::forget(const std::vector<ValueId>& targets) {
  std::erase_if(impl_->targets, [&](ValueId v) { return std::find(targets.begin(), targets.end(), v) != targets.end(); });
}

void StagedRun::advance(const std::vector<ValueId>& values, const Visit& visit, const std::vector<ValueId>& again) {
  Impl& m = *impl_;
  const std::vector<bool> done = nodes_behind(m.graph, values, m.known);
  forget(values);
  m.targets.insert(m.targets.end(), again.begin(), again.end());
  const std::vector<ValueId> frontier = m.frontier(done);
  std::vector<ValueId> wanted = values;
  for (ValueId v : frontier)
    if (!m.is_known(v)) wanted.push_back(v);
  m.run(m.graph, wanted, [&](int64_t sample, std::vector<Tensor> made) {
    auto& held = m.samples[static_cast<size_t>(sample)];
    std::unordered_map<ValueId, int64_t> next;
    for (ValueId v : frontier)
      if (m.is_known(v)) next[v] = held.at(v);
    for (const auto& [v, ticket] : held)
      if (!next.contains(v)) m.store.drop(ticket);
    for (size_t i = values.size(); i < wanted.size(); ++i) next[wanted[i]] = m.store.put(made[i]);
    held = std::move(next);
    made.resize(values.size());
    visit(sample, made);
  });
  std::fill(m.known.begin(), m.known.end(), false);
  for (ValueId v : frontier) m.set_known(v, true);
}

void StagedRun::peek(const Graph& on, const std::vector<ValueId>& values, const Visit& visit) const {
  impl_->run(on, values, [&](int64_t sample, std::vector<Tensor> made) { visit(sample, made); });
}

}  // namespace infopt
