#include "passes/support/measure_layers.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "lib/base/memory.h"
#include "lib/base/threads.h"
#include "lib/ir/edit.h"
#include "lib/runtime/layout.h"
#include "lib/runtime/session.h"
#include "passes/support/signal_to_noise.h"

namespace infopt {
namespace {

/// What a layer gives out, where its quantized form is: behind the activation that it absorbed.
ValueId output_of(const Graph& graph, const Became& became, const LayerPlan& p) {
  const Node& n = graph.node(p.layer.node);
  const Node* activation = p.form == LayerForm::Int8Static ? absorbed_activation(graph, n) : nullptr;
  return activation && became.count(activation->outputs[0]) ? activation->outputs[0] : n.outputs[0];
}

class Measurement {
 public:
  Measurement(const Graph& graph, const Graph& quantized, const std::vector<LayerPlan>& layers, const Became& became, Calibration& calibration)
      : graph_(graph), quantized_(quantized), plans_(layers), became_(became), calibration_(calibration) {
    for (const LayerPlan& p : layers) {
      watch(output_of(graph, became, p));
      watch(graph.node(p.layer.node).input(0));
    }
  }

  /// One model after the other: both with their weights at once would take twice the memory.
  void run(const Sample& sample, bool local) {
    std::map<ValueId, Tensor> seen;
    calibration_.session(graph_, options(true)).run(sample.inputs, [&](ValueId v, const Tensor& t, Layout layout) { seen[v] = convert_layout(t, layout, Layout::Plain); });
    trim_memory();
    calibration_.session(quantized_, options(false)).run(sample.inputs, [&](ValueId v, const Tensor& t, Layout layout) {
      const auto [begin, end] = origin_.equal_range(v);
      for (auto it = begin; it != end; ++it)
        if (const auto s = seen.find(it->second); s != seen.end()) sums_[it->second].add(s->second, convert_layout(t, layout, Layout::Plain));
    });
    if (!local) return;
    trim_memory();
    run_local(sample, seen);
  }

  LayerNoise result() const {
    LayerNoise noise;
    for (const LayerPlan& p : plans_) {
      const NoiseSums* out = find(output_of(graph_, became_, p));
      const NoiseSums* in = find(graph_.node(p.layer.node).input(0));
      noise.layer_db.push_back(out ? out->decibels() : std::nullopt);
      if (const auto it = local_.find(output_of(graph_, became_, p)); it != local_.end() && p.form != LayerForm::Float32) noise.local_db.push_back(it->second.decibels());
      else noise.local_db.emplace_back();
      const double before = in && in->ratio() ? *in->ratio() : 0, after = out && out->ratio() ? *out->ratio() : 0;
      noise.added.push_back(std::isfinite(after) ? std::max(0.0, after - before) : 1e30);
    }
    return noise;
  }

 private:
  /// Every layer by itself: the quantized graph with what the layers read replaced by inputs, which get the float graph's values.
  void run_local(const Sample& sample, const std::map<ValueId, Tensor>& seen) {
    const std::shared_ptr<Graph> apart = quantized_.clone();
    std::unordered_map<ValueId, Tensor> inputs;
    for (ValueId id : apart->inputs())
      if (const auto it = sample.inputs.find(apart->value(id).name); it != sample.inputs.end()) inputs.emplace(id, it->second);
    std::set<ValueId> fed;
    std::vector<ValueId> layers;
    SessionOptions o;
    o.fold = false;
    {
      GraphEdit edit(*apart);
      for (const LayerPlan& p : plans_) {
        const ValueId in = graph_.node(p.layer.node).input(0), out = output_of(graph_, became_, p);
        if (!seen.contains(in) || !seen.contains(out) || !apart->value_alive(now(out))) continue;
        if (std::find(layers.begin(), layers.end(), out) == layers.end()) {
          layers.push_back(out);
          o.fetches.push_back(now(out));
        }
        if (fed.insert(in).second) inputs.emplace(feed(edit, now(in)), seen.at(in));
      }
    }
    if (layers.empty()) return;
    const auto outputs = Session(*apart, o).run(inputs);
    for (size_t i = 0; i < layers.size(); ++i) local_[layers[i]].add(seen.at(layers[i]), outputs[i]);
  }

  /// A new input whose value, rounded as `value` is, the readers of `value` read instead.
  static ValueId feed(GraphEdit& edit, ValueId value) {
    const Graph& graph = edit.graph();
    const std::vector<Use> uses = graph.value(value).uses;
    const ValueId input = edit.add_input("infopt_reference_" + std::to_string(value), {});
    ValueId reads = input;
    const Node* d = graph.producer(value);
    const Node* q = d && d->is("DequantizeLinear") ? graph.producer(d->input(0)) : nullptr;
    if (q && q->is("QuantizeLinear")) {
      auto again = [&](const Node& n, ValueId x) {
        std::vector<ValueId> inputs = n.inputs;
        inputs[0] = x;
        return edit.add({.op = n.op, .attributes = n.attributes}, std::move(inputs));
      };
      reads = again(*d, again(*q, input));
    }
    for (const Use& u : uses)
      if (u.index >= 0) edit.set_input(u.node, static_cast<size_t>(u.index), reads);
    return input;
  }

  ValueId now(ValueId v) const {
    const auto it = became_.find(v);
    return it == became_.end() ? v : it->second;
  }

  void watch(ValueId v) {
    if (v == kNone || graph_.constant(v) || !watched_.insert(v).second) return;
    if (quantized_.value_alive(now(v))) origin_.emplace(now(v), v);
  }

  SessionOptions options(bool reference) const {
    SessionOptions o;
    o.fold = false;
    if (reference) o.taps.assign(watched_.begin(), watched_.end());
    else
      for (const auto& [now, v] : origin_)
        if (o.taps.empty() || o.taps.back() != now) o.taps.push_back(now);
    return o;
  }

  const NoiseSums* find(ValueId v) const {
    const auto it = sums_.find(v);
    return it == sums_.end() ? nullptr : &it->second;
  }

  const Graph& graph_;
  const Graph& quantized_;
  const std::vector<LayerPlan>& plans_;
  const Became& became_;
  Calibration& calibration_;
  std::set<ValueId> watched_;
  std::multimap<ValueId, ValueId> origin_;  ///< a value of the quantized graph, and the float graph's that it stands for
  std::map<ValueId, NoiseSums> sums_, local_;
};

}  // namespace

OutputNoise output_sqnr(const Graph& quantized, Calibration& calibration, int threads, int64_t most) {
  const auto& expected = calibration.reference_outputs();
  SessionOptions options;
  options.fold = false;
  const PartialSession session = calibration.session(quantized, options);
  std::vector<NoiseSums> sums(quantized.outputs().size());
  const std::vector<Sample> samples = calibration.first_samples(std::min<int64_t>(most, static_cast<int64_t>(expected.size())));
  std::vector<std::vector<Tensor>> outputs(samples.size());
  parallel_for(static_cast<int64_t>(samples.size()), threads, [&](int64_t i, int) { outputs[static_cast<size_t>(i)] = session.run(samples[static_cast<size_t>(i)].inputs); });
  for (size_t i = 0; i < samples.size(); ++i)
    for (size_t o = 0; o < sums.size() && o < expected[i].size(); ++o)
      if (outputs[i][o].defined() && expected[i][o].defined() && is_float(outputs[i][o].dtype())) sums[o].add(expected[i][o], outputs[i][o]);
  OutputNoise out;
  for (const NoiseSums& s : sums) {
    out.output_db.push_back(s.decibels());
    if (const auto db = out.output_db.back(); db && (!out.worst_db || *db < *out.worst_db)) out.worst_db = db;
  }
  return out;
}

std::vector<bool> behind_noisy_outputs(const Graph& graph, const OutputNoise& noise, double enough) {
  std::vector<bool> found(graph.node_capacity());
  std::vector<ValueId> open;
  for (size_t o = 0; o < noise.output_db.size(); ++o)
    if (noise.output_db[o] && *noise.output_db[o] < enough) open.push_back(graph.outputs()[o]);
  while (!open.empty()) {
    const Node* n = open.back() == kNone ? nullptr : graph.producer(open.back());
    open.pop_back();
    if (!n || found[static_cast<size_t>(n->id)]) continue;
    found[static_cast<size_t>(n->id)] = true;
    open.insert(open.end(), n->inputs.begin(), n->inputs.end());
    open.insert(open.end(), n->captures.begin(), n->captures.end());
  }
  return found;
}

LayerNoise measure_layers(const Graph& graph, const Graph& quantized, const std::vector<LayerPlan>& layers, const Became& became, Calibration& calibration, bool local) {
  Measurement m(graph, quantized, layers, became, calibration);
  for (const Sample& sample : calibration.first_samples(1)) m.run(sample, local);
  trim_memory();
  return m.result();
}

std::vector<size_t> noisiest(const LayerNoise& noise, std::vector<size_t> candidates, double keep) {
  std::stable_sort(candidates.begin(), candidates.end(), [&](size_t a, size_t b) { return noise.added[a] > noise.added[b]; });
  double total = 0;
  for (size_t i : candidates) total += noise.added[i];
  double left = total;
  size_t count = 0;
  while (count < candidates.size() && (count < (candidates.size() + 7) / 8 || left > keep * total)) left -= noise.added[candidates[count++]];
  candidates.resize(count);
  return candidates;
}

}  // namespace infopt
