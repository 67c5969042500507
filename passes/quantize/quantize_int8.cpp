// Before: a float graph. After: the same graph with QuantizeLinear/DequantizeLinear (or DynamicQuantizeLinear) where int8 gains.
//
// Every weight takes one of four forms: integer with static activation ranges, integer with ranges taken at run time
// (products only), storage (int8 in the file, float in the engine), or float. Which, is decided from shapes by the target's
// costs, from the statistics of one calibration pass, and from the recipe's groups; never from names of models.
#include <algorithm>
#include <cmath>

#include "calibration/calibration.h"
#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "passes/pass.h"
#include "passes/support/body_weights.h"
#include "passes/support/measure_layers.h"
#include "passes/support/measured_bias.h"
#include "passes/support/output_judge.h"
#include "passes/support/plan_int8.h"
#include "passes/support/refine_weights.h"
#include "passes/support/tied.h"
#include "passes/support/write_int8.h"

namespace infopt {
namespace {

constexpr int64_t kRounds = 10;        ///< attempts, the last without integers
constexpr int64_t kWidenings = 4;      ///< rounds in which 4-bit weights get 8 bits again, in the last one all of them
constexpr int64_t kStorageRounds = 4;  ///< then, in which weights kept as int8 go back to float
constexpr int64_t kFewestJudges = 2;
constexpr double kClearly = 1;         ///< decibels by which outputs must be better without corrected biases

/// Samples that say what the outputs have left: few of a large net, more of a small one.
int64_t judges(const Int8Plan& plan) {
  double macs = 1;
  for (const LayerReport& r : plan.reports) macs += static_cast<double>(r.macs);
  return judging_samples(macs, kFewestJudges);
}

/// Where 4-bit weights leave the outputs less than `enough`, the layers whose weights add most noise get their 8 bits back.
void widen_narrow(GraphEdit& edit, const Graph& original, Int8Plan& plan, PassContext& context, double enough) {
  for (int64_t round = 0;; ++round) {
    edit.finish();
    const auto db = output_sqnr(edit.graph(), *context.calibration, context.threads, judges(plan)).worst_db;
    if (!db || *db >= enough) return;
    const std::string has = std::to_string(static_cast<int>(std::lround(*db))) + " dB";
    std::vector<size_t> narrow;
    for (size_t i = 0; i < plan.layers.size(); ++i)
      if (plan.wide_weights.contains(plan.layers[i].layer.node)) narrow.push_back(i);
    if (narrow.empty() || round == kWidenings) {
      context.report.warnings.push_back("4-bit weights leave the outputs " + has + ", below quantize_int8.min_narrow_sqnr_db");
      return;
    }
    const LayerNoise noise = measure_layers(original, edit.graph(), plan.layers, plan.became, *context.calibration);
    const double keep = round + 1 == kWidenings ? 0 : std::pow(10.0, (*db - enough) / 10);
    for (size_t i : noisiest(noise, std::move(narrow), keep)) widen_weights(edit, original, plan, plan.layers[i], "it was among those that added most noise while the outputs had only " + has);
  }
}

/// Weights of fewer bits and their rounding: once the forms stand, which 8 bits decided.
void refine(GraphEdit& edit, const Graph& original, Int8Plan& plan, PassContext& context, const Options& options) {
  const bool narrow = options.text("weight_type") == "int4", learns = options.text("rounding") != "nearest";
  if (narrow) recode_weights(edit, original, plan, context, options);
  if (learns) learn_rounding(edit, original, plan, context, options);
  if (narrow) widen_narrow(edit, original, plan, context, options.number("min_narrow_sqnr_db"));
}

void correct_measured(GraphEdit& edit, const Graph& original, const Int8Plan& plan, PassContext& context) {
  std::vector<NodeId> layers;
  for (const LayerPlan& p : plan.layers) layers.push_back(p.layer.node);
  const int64_t changed = correct_biases(edit, original, layers, *context.calibration, context.threads);
  edit.finish();
  edit.note("the mean error on the calibration data taken out of " + std::to_string(changed) + " layers' biases");
}

/// What the layer reads and gives out has codes of 16 bits; false where it had them.
bool widen(const Graph& graph, Int8Plan& plan, const LayerPlan& p, DType type) {
  const Node& n = graph.node(p.layer.node);
  const Node* activation = absorbed_activation(graph, n);
  const bool reads = plan.wide.emplace(n.input(0), type).second, gives = plan.wide.emplace(activation ? activation->outputs[0] : n.outputs[0], type).second;
  return reads || gives;
}

void to_float(Int8Plan& plan, LayerPlan& p, const std::string& reason, const PassContext& context, const Options& options) {
  LayerReport& r = plan.reports[p.report];
  const bool stored = options.flag("storage") && context.profile.storage_form && r.weight_elements >= options.integer("min_weights");
  r.form = p.form = stored ? LayerForm::Int8Storage : LayerForm::Float32;
  r.reason = reason;
  r.cost = "float's time for its products";
}

/// The regions once more, now that layers went back to float: what lies between such layers may not gain any longer.
void choose_again(const Graph& graph, Int8Plan& plan, const PassContext& context, const Options& options) {
  const Regions now = choose_regions(graph, plan.seen, CostModel(graph, plan.seen, context.profile), plan.keep_float, plan.keep_integer);
  for (size_t n = 0; n < plan.regions.integer.size(); ++n) plan.regions.integer[n] = plan.regions.integer[n] && now.integer[n];
  for (LayerPlan& p : plan.layers)
    if (p.form == LayerForm::Int8Static && !plan.regions.is_integer(p.layer.node)) to_float(plan, p, "its integer kernel no longer gains beside layers that went back to float", context, options);
}

/// Gives an eighth of the integer layers that `noisy` names, those that add most noise, activations of 16 bits if quantize_int8.fallback says so, or gives them
/// back to float arithmetic (`all`: every one of the net), with the reason in their reports. False where none is left to give up.
bool demote(const Graph& graph, Int8Plan& plan, const LayerNoise& noise, const std::vector<bool>& noisy, double output_db, bool all, const PassContext& context, const Options& options) {
  std::vector<size_t> integer;
  for (size_t i = 0; i < plan.layers.size(); ++i)
    if (is_integer(plan.layers[i].form) && (all || noisy[static_cast<size_t>(plan.layers[i].layer.node)])) integer.push_back(i);
  if (integer.empty()) return false;
  if (!all) integer = noisiest(noise, std::move(integer));
  const std::string reason = "it was among those that added most noise while the outputs had only " + std::to_string(static_cast<int>(std::lround(output_db))) + " dB";
  const DType wide = all ? DType::Undefined : wide_type(options.text("fallback"));
  for (size_t i : integer) {
    LayerPlan& p = plan.layers[i];
    LayerReport& r = plan.reports[p.report];
    if (wide != DType::Undefined && p.form == LayerForm::Int8Static && widen(graph, plan, p, wide)) {
      r.reason = "activations of 16 bits: in 8 " + reason;
      continue;
    }
    const auto node = static_cast<size_t>(p.layer.node);
    plan.keep_float[node] = true, plan.keep_integer[node] = false;
    to_float(plan, p, "in integers " + reason, context, options);
  }
  if (all) plan.regions.integer.assign(plan.regions.integer.size(), false);
  else choose_again(graph, plan, context, options);
  return true;
}

/// Where no integers are left, and weights alone cost too much: those kept as int8 that add most noise go back to float, those of recurrent layers last.
/// False where there are none.
bool widen_storage(Int8Plan& plan, const LayerNoise& noise, const std::vector<bool>& noisy, double output_db, double enough) {
  std::vector<size_t> stored;
  for (size_t i = 0; i < plan.layers.size(); ++i)
    if (plan.layers[i].form == LayerForm::Int8Storage && noisy[static_cast<size_t>(plan.layers[i].layer.node)]) stored.push_back(i);
  if (stored.empty()) {
    const bool any = !plan.stored.empty() || !plan.captured.empty();
    plan.stored.clear();
    plan.captured.clear();
    return any;
  }
  for (size_t i : noisiest(noise, std::move(stored), std::pow(10.0, (output_db - enough) / 10))) {
    plan.layers[i].form = LayerForm::Float32;
    LayerReport& r = plan.reports[plan.layers[i].report];
    r.form = LayerForm::Float32;
    r.reason = "kept as int8 it was among those that added most noise while the outputs had only " + std::to_string(static_cast<int>(std::lround(output_db))) + " dB";
  }
  return true;
}

/// Where the outputs have too little with corrected biases, they are tried without, once: means say little of samples of another scale. That stays
/// only where it's clearly better than `corrected_db`, NaN at first. True where the graph is to be written again.
bool other_biases(Int8Plan& plan, double& corrected_db, double db, bool enough) {
  if (plan.corrects_biases) {
    if (enough || !std::isnan(corrected_db)) return false;
    corrected_db = db;
    plan.corrects_biases = false;
    return true;
  }
  plan.corrects_biases = db < corrected_db + kClearly;
  if (!plan.corrects_biases) corrected_db = NAN;
  return plan.corrects_biases;
}

void run(GraphEdit& edit, PassContext& context, const Options& options) {
  if (!context.calibration) throw Error(ErrorKind::Usage, "the step quantize_int8 needs calibration data: give --calib DATA");
  if (options.flag("storage")) hoist_body_weights(edit, options.integer("min_weights"));
  auto transposed = transpose_constants(edit);
  Int8Plan plan = plan_int8(edit.graph(), context, options);
  plan.transposed = std::move(transposed);
  plan.corrects_biases = options.flag("bias_correction");
  const std::shared_ptr<Graph> original = edit.graph().clone();
  const EditLog log = edit.log();
  trim_memory();
  const int64_t judged = judges(plan);
  const double least = options.number("min_sqnr_db");
  const auto again = [&] {
    edit.restore(*original);
    edit.log() = log;
  };
  double corrected_db = NAN;
  for (int64_t round = 0;;) {
    Int8Plan attempt = plan;
    write_int8(edit, attempt, context, options);
    edit.finish();
    const OutputNoise outputs = output_sqnr(edit.graph(), *context.calibration, context.threads, judged);
    const auto db = outputs.worst_db;
    const bool enough = !db || *db >= least;
    if (db && other_biases(plan, corrected_db, *db, enough)) {
      again();
      continue;
    }
    if (!enough && round < kRounds + kStorageRounds) {
      const LayerNoise noise = measure_layers(*original, edit.graph(), attempt.layers, attempt.became, *context.calibration);
      const std::vector<bool> noisy = behind_noisy_outputs(*original, outputs, least);
      if ((round < kRounds && demote(*original, plan, noise, noisy, *db, round == kRounds - 1, context, options)) || widen_storage(plan, noise, noisy, *db, least)) {
        ++round;
        again();
        continue;
      }
    }
    if (!enough) context.report.warnings.push_back("int8 leaves the outputs " + std::to_string(static_cast<int>(std::lround(*db))) + " dB, below quantize_int8.min_sqnr_db");
    refine(edit, *original, attempt, context, options);
    if (options.flag("measured_bias") && options.text("rounding") == "nearest") correct_measured(edit, *original, attempt, context);
    if (context.measure_layers) {
      const LayerNoise noise = measure_layers(*original, edit.graph(), attempt.layers, attempt.became, *context.calibration, true);
      for (size_t i = 0; i < attempt.layers.size(); ++i) {
        attempt.reports[attempt.layers[i].report].accumulated_sqnr_db = noise.layer_db[i];
        attempt.reports[attempt.layers[i].report].local_sqnr_db = noise.local_db[i];
      }
    }
    for (LayerReport& layer : attempt.reports) context.report.layers.push_back(std::move(layer));
    return;
  }
}

int64_t opset_of(const Graph&, const std::vector<GroupRule>& groups, const Options& o) {
  const bool wide = wide_type(o.text("activation_type")) != DType::Undefined || wide_type(o.text("fallback")) != DType::Undefined ||
                    std::any_of(groups.begin(), groups.end(), [](const GroupRule& g) { return wide_type(g.activations) != DType::Undefined; });
  return wide || o.text("weight_type") == "int4" ? 21 : 13;
}

}  // namespace

PassDef pass_quantize_int8() {
  return {
      .name = "quantize_int8",
      .summary = "int8 weights and activations where they gain on the target",
      .contract = Contract::Lossy,
      .options =
          {
              {.name = "activations", .help = "auto chooses for each product; the others allow only that form", .otherwise = std::string("auto"), .choices = {"auto", "static", "dynamic", "none"}},
              {.name = "dynamic_convolutions", .help = "activations: dynamic makes ConvInteger of convolutions too, with ranges taken at run time", .otherwise = false},
              {.name = "per_channel", .help = "a scale for each output channel of a weight", .otherwise = true},
              {.name = "activation_type",
               .help = "of integer layers' activations; 16 bits need opset 21, and few engines have kernels for them",
               .otherwise = std::string("int8"),
               .choices = {"int8", "int16", "uint16"}},
              {.name = "fallback", .help = "what layers that add too much noise get: float arithmetic, or activations of 16 bits first", .otherwise = std::string("float"), .choices = {"float", "int16", "uint16"}},
              {.name = "weight_type", .help = "of layers that compute in integers; int4 has codes from -8 to 7 and needs opset 21", .otherwise = std::string("int8"), .choices = {"int8", "int4"}},
              {.name = "rounding", .help = "nearest, or learned on the calibration data: layer by layer (adaround) or block by block (reconstruct)", .otherwise = std::string("nearest"), .choices = {"nearest", "adaround", "reconstruct"}},
              {.name = "iterations", .help = "steps for each block where the rounding is learned", .otherwise = int64_t{200}, .least = 10, .most = 100000},
              {.name = "bias_correction", .help = "take the mean error of quantized weights out of the bias", .otherwise = true},
              {.name = "measured_bias", .help = "then take the mean error that is left on the calibration data out of each bias, layer after layer; learned rounding learns biases instead", .otherwise = false},
              {.name = "equalize", .help = "move outlier channels of a product's input into its weights", .otherwise = true},
              {.name = "embeddings", .help = "form of tables that are only looked up in", .otherwise = std::string("storage"), .choices = {"storage", "float"}},
              {.name = "storage", .help = "int8 in the file for weights whose products stay in float", .otherwise = true},
              {.name = "min_weights", .help = "smaller weights stay as they are", .otherwise = int64_t{400}, .least = 1},
              {.name = "min_sqnr_db", .help = "what the outputs must keep on the first samples; else the layers that add most noise go back to float", .otherwise = 20.0, .least = -100, .most = 200},
              {.name = "min_narrow_sqnr_db", .help = "what the outputs must keep with weights of 4 bits; else the layers whose weights add most noise get 8", .otherwise = 12.0, .least = -100, .most = 200},
              {.name = "min_layer_sqnr_db", .help = "a product whose estimated error is larger stays in float", .otherwise = 20.0, .least = -100, .most = 200},
          },
      .needs_calibration = true,
      .needs_opset = 13,
      .run = run,
      .opset_for = opset_of,
  };
}

}  // namespace infopt
