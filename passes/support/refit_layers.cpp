#include "passes/support/refit_layers.h"

#include <algorithm>
#include <map>
#include <memory>

#include "calibration/calibration.h"
#include "calibration/staged_run.h"
#include "calibration/tensor_store.h"
#include "lib/base/memory.h"
#include "passes/support/layer_bias.h"
#include "passes/support/ridge.h"

namespace infopt {
namespace {

constexpr int64_t kMostHeld = int64_t{256} << 20;

/// Values of a graph, some asked for more than once. What lies before a value that is asked for is fetched before it.
class Fetcher {
 public:
  Fetcher(const Graph& graph, PassContext& context, const std::vector<std::vector<ValueId>>& requests, int64_t samples) : store_(kMostHeld) {
    for (const auto& values : requests)
      for (ValueId v : values) ++waiting_[v];
    for (ValueId v : graph.inputs())
      if (waiting_.contains(v)) targets_.push_back(v);
    for (NodeId id : graph.order())
      for (ValueId v : graph.node(id).outputs)
        if (v != kNone && waiting_.contains(v)) targets_.push_back(v);
    run_ = std::make_unique<StagedRun>(graph, *context.calibration, targets_, StagedOptions{.samples = samples, .threads = context.threads});
  }
  int64_t samples() const { return run_->samples(); }
  /// Makes the values ready.
  void prepare(const std::vector<ValueId>& values) {
    size_t end = next_;
    for (size_t i = next_; i < targets_.size(); ++i)
      if (std::count(values.begin(), values.end(), targets_[i])) end = i + 1;
    for (; next_ < end; ++next_) {
      const ValueId v = targets_[next_];
      std::vector<int64_t>& tickets = held_[v];
      tickets.resize(static_cast<size_t>(samples()));
      run_->advance({v}, [&](int64_t sample, const std::vector<Tensor>& seen) { tickets[static_cast<size_t>(sample)] = store_.put(seen[0]); });
    }
  }
  Tensor get(ValueId v, int64_t sample) const { return store_.get(held_.at(v)[static_cast<size_t>(sample)]); }
  /// One request for each of the values is served.
  void done(const std::vector<ValueId>& values) {
    for (ValueId v : values) {
      if (--waiting_[v] > 0) continue;
      for (int64_t t : held_[v]) store_.drop(t);
      held_[v].clear();
    }
  }

 private:
  TensorStore store_;
  std::unique_ptr<StagedRun> run_;
  std::vector<ValueId> targets_;  ///< in the order in which they are made
  size_t next_ = 0;
  std::map<ValueId, int> waiting_;
  std::map<ValueId, std::vector<int64_t>> held_;
};

struct Task {
  Layer layer;
  LayerBias bias;
  ValueId residual = kNone;  ///< what the output is added to
  std::vector<ValueId> inputs() const { return residual == kNone ? std::vector{input} : input == residual ? std::vector{input} : std::vector{input, residual}; }
  std::vector<ValueId> targets() const { return residual == kNone ? std::vector{bias.output} : std::vector{bias.output, residual}; }
  ValueId input = kNone;
};

class Refit {
 public:
  Refit(GraphEdit& edit, const Graph& original, const std::function<std::vector<bool>(ValueId, int64_t)>& keep, const RefitOptions& options, PassContext& context)
      : edit_(edit), graph_(edit.graph()), original_(original), keep_(keep), options_(options), context_(context) {}

  RefitReport run() {
    find_tasks();
    std::vector<std::vector<ValueId>> inputs, targets;
    for (const Task& t : tasks_) inputs.push_back(t.inputs()), targets.push_back(t.targets());
    if (tasks_.empty()) return report_;
    Fetcher now(graph_, context_, inputs, options_.samples), then(original_, context_, targets, options_.samples);
    for (const Task& t : tasks_) {
      now.prepare(t.inputs());
      then.prepare(t.targets());
      fit(t, now, then);
      now.done(t.inputs());
      then.done(t.targets());
      trim_memory();
    }
    return report_;
  }

 private:
  /// Layers behind something that has changed.
  void find_tasks() {
    std::vector<bool> changed(graph_.value_capacity(), false);
    std::vector<int64_t> place(graph_.value_capacity(), 0);
    int64_t at = 0;
    for (NodeId id : graph_.order()) {
      const Node& n = graph_.node(id);
      const bool known = original_.alive(id);
      bool differs = !known;
      for (size_t i = 0; i < n.inputs.size(); ++i) {
        if (n.inputs[i] == kNone) continue;
        differs = differs || changed[static_cast<size_t>(n.inputs[i])] || (graph_.constant(n.inputs[i]) && is_float(graph_.constant(n.inputs[i])->dtype()) && original_.node(id).input(i) != n.inputs[i]);
      }
      ++at;
      for (ValueId v : n.outputs)
        if (v != kNone) changed[static_cast<size_t>(v)] = differs, place[static_cast<size_t>(v)] = at;
      if (known && differs) add_task(n, place, at, n.input(0) != kNone && changed[static_cast<size_t>(n.input(0))]);
    }
  }
  void add_task(const Node& n, const std::vector<int64_t>& place, int64_t at, bool input_changed) {
    const auto layer = layer_of(graph_, n.id);
    if (!layer || layer->transposed || graph_.value(layer->weights).uses.size() != 1) return;
    if (graph_.constant(layer->weights)->dtype() != DType::F32 || !original_.producer(n.outputs[0])) return;
    Task t{*layer, find_bias(graph_, *layer), kNone, n.input(0)};
    if (!original_.value_alive(t.bias.output) || !original_.value_alive(t.input)) return;
    const Node* add = options_.residuals ? graph_.sole_consumer(t.bias.output) : nullptr;
    if (add && add->is("Add")) {
      const ValueId other = add->input(0) == t.bias.output ? add->input(1) : add->input(0);
      const bool same = other != t.bias.output && graph_.producer(other) && graph_.value(other).type.shape == graph_.value(t.bias.output).type.shape && graph_.value(other).type.has_shape;
      if (same && place[static_cast<size_t>(other)] > 0 && place[static_cast<size_t>(other)] < at) t.residual = other;
    }
    if (input_changed || t.residual != kNone) tasks_.push_back(std::move(t));
  }

  void fit(const Task& t, const Fetcher& now, const Fetcher& then) {
    const Node& n = graph_.node(t.layer.node);
    const bool has_bias = t.bias.node != kNone;
    const std::vector<float> weights = read_weights(t.layer, *graph_.constant(t.layer.weights));
    RidgeFit fit(n, graph_.constant(t.layer.weights)->shape(), t.layer, has_bias, now.samples());
    const std::vector<bool> keep = keep_(t.bias.output, t.layer.convolution ? 1 : -1);
    for (int64_t s = 0; s < now.samples(); ++s) {
      LayerTarget target{then.get(t.bias.output, s), {}, {}, keep};
      if (t.residual != kNone) target.residual_then = then.get(t.residual, s), target.residual_now = now.get(t.residual, s);
      const std::vector<bool>* live = options_.live ? options_.live->of({t.bias.output, t.layer.convolution ? 1 : target.output.rank() - 1}, s) : nullptr;
      fit.add(options_.origin ? options_.origin(s) : s, now.get(t.input, s), target, live, context_.threads);
    }
    std::vector<float> fitted = weights;
    std::vector<double> bias = t.bias.values;
    if (!fit.solve(fitted, bias, context_.threads)) {
      ++report_.kept;
      return;
    }
    ++report_.layers;
    const Shape stored = graph_.constant(t.layer.weights)->shape();
    edit_.set_constant(t.layer.weights, write_weights(t.layer, stored, fitted));
    if (has_bias) write_bias(edit_, t.layer, t.bias, bias);
  }

  GraphEdit& edit_;
  const Graph& graph_;
  const Graph& original_;
  const std::function<std::vector<bool>(ValueId, int64_t)>& keep_;
  const RefitOptions& options_;
  PassContext& context_;
  std::vector<Task> tasks_;
  RefitReport report_;
};

}  // namespace

RefitReport refit_layers(GraphEdit& edit, const Graph& original, const std::function<std::vector<bool>(ValueId, int64_t)>& keep, const RefitOptions& options, PassContext& context) {
  return Refit(edit, original, keep, options, context).run();
}

}  // namespace infopt
