#include "passes/support/measure_int8.h"

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

constexpr int64_t kSamples = 2;

/// What a layer gives out, where its quantized form is: behind the activation that it absorbed.
ValueId output_of(const Graph& graph, const Int8Plan& plan, const LayerPlan& p) {
  const Node& n = graph.node(p.layer.node);
  const Node* activation = p.form == LayerForm::Int8Static ? absorbed_activation(graph, n) : nullptr;
  return activation && plan.became.count(activation->outputs[0]) ? activation->outputs[0] : n.outputs[0];
}

class Measurement {
 public:
  Measurement(const Graph& graph, const Graph& quantized, const Int8Plan& plan, Calibration& calibration) : graph_(graph), quantized_(quantized), plan_(plan), calibration_(calibration) {
    for (const LayerPlan& p : plan.layers) {
      watch(output_of(graph, plan, p));
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

  Int8Noise result() const {
    Int8Noise noise;
    for (const LayerPlan& p : plan_.layers) {
      const NoiseSums* out = find(output_of(graph_, plan_, p));
      const NoiseSums* in = find(graph_.node(p.layer.node).input(0));
      noise.layer_db.push_back(out ? out->decibels() : std::nullopt);
      if (const auto it = local_.find(output_of(graph_, plan_, p)); it != local_.end() && p.form != LayerForm::Float32) noise.local_db.push_back(it->second.decibels());
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
      for (const LayerPlan& p : plan_.layers) {
        const ValueId in = graph_.node(p.layer.node).input(0), out = output_of(graph_, plan_, p);
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
    const auto it = plan_.became.find(v);
    return it == plan_.became.end() ? v : it->second;
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
  const Int8Plan& plan_;
  Calibration& calibration_;
  std::set<ValueId> watched_;
  std::multimap<ValueId, ValueId> origin_;  ///< a value of the quantized graph, and the float graph's that it stands for
  std::map<ValueId, NoiseSums> sums_, local_;
};

}  // namespace

std::optional<double> output_sqnr(const Graph& quantized, Calibration& calibration, int threads) {
  const auto& expected = calibration.reference_outputs();
  SessionOptions options;
  options.fold = false;
  const PartialSession session = calibration.session(quantized, options);
  std::vector<NoiseSums> sums(quantized.outputs().size());
  const std::vector<Sample> samples = calibration.first_samples(std::min<int64_t>(kSamples, static_cast<int64_t>(expected.size())));
  std::vector<std::vector<Tensor>> outputs(samples.size());
  parallel_for(static_cast<int64_t>(samples.size()), threads, [&](int64_t i, int) { outputs[static_cast<size_t>(i)] = session.run(samples[static_cast<size_t>(i)].inputs); });
  for (size_t i = 0; i < samples.size(); ++i)
    for (size_t o = 0; o < sums.size() && o < expected[i].size(); ++o)
      if (outputs[i][o].defined() && expected[i][o].defined() && is_float(outputs[i][o].dtype())) sums[o].add(expected[i][o], outputs[i][o]);
  std::optional<double> worst;
  for (const NoiseSums& s : sums)
    if (const auto db = s.decibels(); db && (!worst || *db < *worst)) worst = db;
  return worst;
}

Int8Noise measure_int8(const Graph& graph, const Graph& quantized, const Int8Plan& plan, Calibration& calibration, bool local) {
  Measurement m(graph, quantized, plan, calibration);
  for (const Sample& sample : calibration.first_samples(1)) m.run(sample, local);
  trim_memory();
  return m.result();
}

bool demote(Int8Plan& plan, const Int8Noise& noise, double output_db, bool all, const PassContext& context, const Options& options) {
  std::vector<size_t> integer;
  for (size_t i = 0; i < plan.layers.size(); ++i)
    if (is_integer(plan.layers[i].form)) integer.push_back(i);
  if (integer.empty()) return false;
  std::stable_sort(integer.begin(), integer.end(), [&](size_t a, size_t b) { return noise.added[a] > noise.added[b]; });
  if (all) plan.regions.integer.assign(plan.regions.integer.size(), false);
  else integer.resize((integer.size() + 7) / 8);
  for (size_t i : integer) {
    LayerPlan& p = plan.layers[i];
    LayerReport& r = plan.reports[p.report];
    plan.regions.integer[static_cast<size_t>(p.layer.node)] = false;
    const bool stored = options.flag("storage") && context.profile.storage_form && r.weight_elements >= options.integer("min_weights");
    r.form = p.form = stored ? LayerForm::Int8Storage : LayerForm::Float32;
    r.reason = "in integers it was among those that added most noise while the outputs had only " + std::to_string(static_cast<int>(std::lround(output_db))) + " dB";
    r.cost = "float's time for its products";
  }
  return true;
}

}  // namespace infopt
