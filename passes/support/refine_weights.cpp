#include "passes/support/refine_weights.h"

#include <algorithm>
#include <cmath>

#include "calibration/calibration.h"
#include "passes/support/coded_layers.h"
#include "passes/support/quantize_weights.h"
#include "passes/support/reconstruct.h"
#include "passes/support/signal_to_noise.h"
#include "passes/support/weight_grid.h"

namespace infopt {
namespace {

constexpr int64_t kMemory = 600'000'000;  // of one block's values, estimated from the largest activation
constexpr int64_t kFewest = 8;            // samples that are taken whatever their size
constexpr double kLearningFlops = 16e12;  // two to four minutes on two cores
constexpr double kRunningFlops = 3e12;    // of both graphs over all samples

class Recoder {
 public:
  Recoder(GraphEdit& edit, const Graph& original, Int8Plan& plan, const Options& options) : edit_(edit), graph_(edit.graph()), original_(original), plan_(plan), options_(options) {}

  /// False where the layer's weights aren't int8 codes of its own.
  bool recode(const LayerPlan& p) {
    if (p.form == LayerForm::Float32 || !graph_.alive(p.layer.node) || plan_.captured.contains(p.layer.weights)) return false;  // bodies read the 8 bits too
    const auto coded = coded_layer(graph_, p.layer.node);
    if (!coded || coded->grid.dtype != DType::I8) return false;
    const std::vector<float> weights = read_weights(p.layer, *original_.constant(p.layer.weights));
    const Node d = *graph_.producer(coded->weights);
    const Tensor& old_scales = *graph_.constant(d.input(1));
    remember(p, *coded, d);
    const WeightFormat format{DType::I4, old_scales.size() == 1 ? -1 : 0, true};
    const CodedWeights made = round_to_nearest(weights, fit_grid(weights, p.layer.out, p.layer.in * p.layer.taps, format, GridFit::LeastSquares));
    const QuantizedWeights before = quantized(read_weights(p.layer, *graph_.constant(coded->codes)), old_scales), after = quantized({made.codes.begin(), made.codes.end()}, Tensor::vector(made.grid.scales));
    const Tensor scales = Tensor::vector(made.grid.scales).reshaped(old_scales.shape());
    edit_.set_inputs(d.id, {edit_.add_constant(cast(write_weights(p.layer, coded->grid.shape, after.codes), DType::I4)), edit_.add_constant(scales), edit_.add_constant(Tensor::zeros(DType::I4, old_scales.shape()))});
    if (coded->bias != kNone) adapt_bias(p, *coded, weights, before, after, old_scales, scales);
    return true;
  }

 private:
  void remember(const LayerPlan& p, const CodedLayer& coded, const Node& decode) {
    WideWeights& w = plan_.wide_weights[p.layer.node];
    for (ValueId v : decode.inputs) w.decode.push_back(v == kNone ? Tensor() : *graph_.constant(v));
    if (coded.bias == kNone) return;
    w.bias = coded.bias_values;
    if (!graph_.constant(coded.bias)) w.bias_scale = *graph_.constant(graph_.producer(coded.bias)->input(1));
  }

  static QuantizedWeights quantized(const std::vector<float>& codes, const Tensor& scales) {
    QuantizedWeights q;
    q.codes.assign(codes.begin(), codes.end());
    q.scales = {scales.data<float>(), scales.data<float>() + scales.size()};
    return q;
  }

  /// Its codes' scale is input scale × weight scale; and what the weights' rounding shifts the output by is another amount now.
  void adapt_bias(const LayerPlan& p, const CodedLayer& coded, const std::vector<float>& weights, const QuantizedWeights& before, const QuantizedWeights& after, const Tensor& old_scales, const Tensor& scales) {
    Tensor values = coded.bias_values.clone();
    const LayerInputs inputs = inputs_of(original_, plan_, p.layer, {});
    if (plan_.corrects_biases && !inputs.means.empty() && values.size() == p.layer.out) {
      const auto was = output_shift(p.layer, weights, before, inputs), now = output_shift(p.layer, weights, after, inputs);
      for (int64_t i = 0; i < values.size(); ++i) values.mutable_data<float>()[i] += static_cast<float>(was[static_cast<size_t>(i)] - now[static_cast<size_t>(i)]);
    }
    if (!graph_.constant(coded.bias)) {
      const Node d = *graph_.producer(coded.bias);
      Tensor scale = graph_.constant(d.input(1))->clone();
      for (int64_t i = 0; i < scale.size(); ++i) {
        const int64_t k = scales.size() == 1 ? 0 : i;
        scale.mutable_data<float>()[i] *= scales.data<float>()[k] / old_scales.data<float>()[k];
      }
      edit_.set_input(d.id, 1, edit_.add_constant(scale));
    }
    set_bias(edit_, coded, values);
  }

  GraphEdit& edit_;
  const Graph& graph_;
  const Graph& original_;
  Int8Plan& plan_;
  const Options& options_;
};

/// Signal to noise of a layer's weights as they are coded now.
std::optional<double> weight_sqnr(const Graph& graph, const Graph& original, const LayerPlan& p) {
  const auto coded = graph.alive(p.layer.node) ? coded_layer(graph, p.layer.node) : std::nullopt;
  if (!coded) return std::nullopt;
  const std::vector<double> codes = to_vector<double>(*graph.constant(coded->codes)), weights = to_vector<double>(*original.constant(p.layer.weights));
  double signal = 0, noise = 0;
  for (size_t i = 0; i < codes.size(); ++i) {
    const double d = (codes[i] - static_cast<double>(coded->grid.zeros[i])) * static_cast<double>(coded->grid.scales[i]) - weights[i];
    signal += weights[i] * weights[i];
    noise += d * d;
  }
  return sqnr_db(signal, noise);
}

/// As many samples as let three of the largest activation of each fit, and as are run in reasonable time.
int64_t samples_that_fit(const Int8Plan& plan) {
  int64_t largest = 1;
  for (const Observed& o : plan.seen)
    if (is_float(o.dtype)) largest = std::max(largest, element_count(o.shape) * 4);
  double macs = 1;
  for (const LayerReport& r : plan.reports) macs += static_cast<double>(r.macs);
  return std::max(kFewest, std::min(kMemory / (3 * largest), static_cast<int64_t>(kRunningFlops / (4 * macs))));
}

/// What was left out so that it ends within minutes.
void tell_effort(GraphEdit& edit, const Graph& original, const ReconstructReport& learning, const ReconstructOptions& asked) {
  if (learning.iterations > 0 && (learning.iterations < asked.iterations || learning.batch < asked.batch - 0.5))
    edit.note("a large model: the rounding is learned in " + std::to_string(learning.iterations) + " steps of " + std::to_string(static_cast<int>(std::lround(learning.batch))) + " samples on average, not " +
              std::to_string(asked.iterations) + " of " + std::to_string(asked.batch));
  if (learning.left_out.empty()) return;
  std::string names;
  for (size_t i = 0; i < std::min<size_t>(5, learning.left_out.size()); ++i) names += (i ? ", " : "") + original.label(learning.left_out[i]);
  if (learning.left_out.size() > 5) names += " and " + std::to_string(learning.left_out.size() - 5) + " more";
  edit.note("a large model: the rounding of " + std::to_string(learning.left_out.size()) + " layers, the costliest to learn, stays to nearest: " + names);
}

}  // namespace

void recode_weights(GraphEdit& edit, const Graph& original, Int8Plan& plan, PassContext& context, const Options& options) {
  Recoder recoder(edit, original, plan, options);
  int64_t left = 0;
  for (const LayerPlan& p : plan.layers) {
    LayerReport& r = plan.reports[p.report];
    if (recoder.recode(p)) {
      r.reason += "; weights of 4 bits";
      r.weight_sqnr_db = weight_sqnr(edit.graph(), original, p);
    } else if (p.form != LayerForm::Float32) {
      r.reason += "; weights of 8 bits, in this form there are none of 4";
      ++left;
    }
  }
  edit.finish();
  if (left > 0) context.report.warnings.push_back(std::to_string(left) + " layers keep 8-bit weights; the layers' reasons say which");
}

bool widen_weights(GraphEdit& edit, const Graph& original, Int8Plan& plan, const LayerPlan& p, const std::string& reason) {
  const auto it = plan.wide_weights.find(p.layer.node);
  const auto coded = it != plan.wide_weights.end() && edit.graph().alive(p.layer.node) ? coded_layer(edit.graph(), p.layer.node) : std::nullopt;
  if (!coded) return false;
  const WideWeights& w = it->second;
  std::vector<ValueId> inputs;
  for (const Tensor& t : w.decode) inputs.push_back(t.defined() ? edit.add_constant(t) : kNone);
  edit.set_inputs(edit.graph().producer(coded->weights)->id, std::move(inputs));
  if (coded->bias != kNone && w.bias.defined()) {
    if (w.bias_scale.defined() && !edit.graph().constant(coded->bias)) edit.set_input(edit.graph().producer(coded->bias)->id, 1, edit.add_constant(w.bias_scale));
    set_bias(edit, *coded, w.bias);
  }
  plan.wide_weights.erase(it);
  LayerReport& r = plan.reports[p.report];
  r.reason += "; 8 again: " + reason;
  r.weight_sqnr_db = weight_sqnr(edit.graph(), original, p);
  return true;
}

void learn_rounding(GraphEdit& edit, const Graph& original, Int8Plan& plan, PassContext& context, const Options& options) {
  ReconstructOptions o;
  o.single_layers = options.text("rounding") == "adaround";
  o.iterations = static_cast<int>(options.integer("iterations"));
  o.threads = context.threads;
  o.progress = [&](int64_t done, int64_t total) { context.tell(done, total, "blocks learned"); };
  o.samples = samples_that_fit(plan);
  o.budget = kLearningFlops;
  o.seen = &plan.seen;
  for (const LayerPlan& p : plan.layers) o.macs[p.layer.node] = plan.reports[p.report].macs;
  const ReconstructReport learning = reconstruct(edit, original, plan.became, *context.calibration, o);
  edit.finish();
  tell_effort(edit, original, learning, o);
  const auto db = [](double noise) { return std::to_string(static_cast<int>(std::lround(-10 * std::log10(std::max(noise, 1e-30))))) + " dB"; };
  size_t learned = 0;
  for (const BlockReport& b : learning.blocks) {
    learned += b.layers.size();
    std::string line = original.label(b.layers.front());
    if (b.layers.size() > 1) line += " to " + original.label(b.layers.back());
    edit.note(line + ": rounding learned, block's output from " + db(b.noise_before) + " to " + db(b.noise_after));
  }
  for (const LayerPlan& p : plan.layers)
    if (const auto sqnr = p.form == LayerForm::Float32 ? std::nullopt : weight_sqnr(edit.graph(), original, p)) plan.reports[p.report].weight_sqnr_db = sqnr;
  if (learned == 0) context.report.warnings.push_back("the rounding of no layer could be learned");
}

}  // namespace infopt
