// Before: a float graph. After: its weights in few bits behind DequantizeLinear, or in com.microsoft's MatMulNBits; activations stay as they are.
//
// Rounded to nearest; by GPTQ (passes/support/gptq.h), each layer with the inputs that the rounded layers before it give; after AWQ's scaling
// (passes/support/awq.h) or not. Which layers, the recipe's groups and their sizes say; where the outputs keep too little, the noisiest get 8 bits.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "calibration/calibration.h"
#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "passes/pass.h"
#include "passes/support/awq.h"
#include "passes/support/collect_moments.h"
#include "passes/support/layer_bias.h"
#include "passes/support/measure_layers.h"
#include "passes/support/output_judge.h"
#include "passes/support/patterns.h"
#include "passes/support/recurrent_weights.h"
#include "passes/support/round_weights.h"
#include "passes/support/signal_to_noise.h"
#include "passes/support/tied.h"
#include "passes/support/weight_tables.h"
#include "passes/support/write_weights.h"

namespace infopt {
namespace {

void report_pruned(const Graph& graph, const WeightsPlan& p, const CodedWeights& codes, const WeightsOptions& options, Report& report) {
  PrunedLayer r{.node = graph.label(p.layer.node), .op = graph.node(p.layer.node).op, .pattern = describe(options.pattern), .algorithm = "sparsegpt, gptq in one sweep", .reason = {}};
  r.weights_before = r.weights_after = static_cast<int64_t>(codes.codes.size());
  const std::vector<float> values = decode(codes);
  r.zeros = std::count(values.begin(), values.end(), 0.0f);
  report.pruned.push_back(std::move(r));
}

constexpr double kFoldPays = 0.97;    ///< what a scaling must leave of the error at most, where something takes it
constexpr int kWidenings = 4;         ///< rounds in which layers get 8 bits, in the last one all that are left
constexpr double kClearly = 1;        ///< decibels by which outputs must be better without corrected biases
constexpr int64_t kFewestJudges = 4;  ///< samples
constexpr double kInsertPays = 0.8;   ///< and where it needs a multiplication

class ChannelScaler {
 public:
  ChannelScaler(GraphEdit& edit, const WeightsOptions& options, PassContext& context) : edit_(edit), graph_(edit.graph()), options_(options), context_(context) {}

  void run(const std::vector<WeightsPlan>& plan) {
    std::vector<Layer> layers;
    std::vector<WeightFormat> formats;
    for (const WeightsPlan& p : plan)
      if (p.moments && !p.layer.convolution && graph_.value(p.layer.weights).uses.size() == 1) layers.push_back(p.layer), formats.push_back(p.format);
    std::vector<SharedInput> shared = find_shared_inputs(graph_, layers);
    const std::shared_ptr<Graph> original = graph_.clone();  // scaling changes what the run has passed
    MomentsRun moments(*original, nullptr, layers, shared, context_);
    int64_t done = 0;
    for (std::span<SharedInput> rest(shared); !rest.empty();) {
      const std::span<SharedInput> now = rest.first(together(rest, false));
      moments.collect(now);
      for (SharedInput& s : now) {
        scale(s, layers, formats);
        s.moments.reset();
        context_.tell(++done, static_cast<int64_t>(shared.size()), "inputs of products scaled");
      }
      rest = rest.subspan(now.size());
    }
    edit_.note(std::to_string(folded_) + " inputs of products have scaled channels, " + std::to_string(inserted_) + " more by a multiplication");
    edit_.finish();
  }

 private:
  void scale(const SharedInput& shared, const std::vector<Layer>& layers, const std::vector<WeightFormat>& formats) {
    std::vector<ScaledProduct> products;
    std::vector<NodeId> readers;
    for (size_t l : shared.layers) {
      products.push_back({read_weights(layers[l], *graph_.constant(layers[l].weights)), layers[l].out, formats[l]});
      readers.push_back(layers[l].node);
    }
    const ChannelScales found = search_channel_scales(products, shared.moments->h(0), options_.fit, context_.threads);
    if (found.s.empty() || found.gain > kFoldPays) return;
    if (divide_channels(edit_, shared.input, found.s, readers)) {
      ++folded_;
    } else if (found.gain <= kInsertPays) {
      insert(shared.input, found.s, readers, graph_.constant(layers[shared.layers[0]].weights)->dtype());
    } else {
      return;
    }
    for (size_t i = 0; i < products.size(); ++i) {
      const Layer& layer = layers[shared.layers[i]];
      std::vector<float>& w = products[i].weights;
      for (size_t x = 0; x < w.size(); ++x) w[x] *= found.s[x % found.s.size()];
      const Tensor old = *graph_.constant(layer.weights);
      edit_.set_input(layer.node, 1, edit_.add_constant(cast(write_weights(layer, old.shape(), w), old.dtype())));
    }
  }

  void insert(ValueId input, const std::vector<float>& s, const std::vector<NodeId>& readers, DType type) {
    std::vector<float> inverse;
    for (float f : s) inverse.push_back(1 / f);
    const ValueId scaled = edit_.add({.op = "Mul"}, {input, edit_.add_constant(cast(Tensor::vector(inverse), type))});
    for (NodeId reader : readers) edit_.set_input(reader, 0, scaled);
    ++inserted_;
  }

  GraphEdit& edit_;
  const Graph& graph_;
  const WeightsOptions& options_;
  PassContext& context_;
  int64_t folded_ = 0, inserted_ = 0;
};

/// Before the others, with half of the noise that the outputs may have: the others are rounded for what these leave.
void store_recurrent(GraphEdit& edit, PassContext& context, const WeightsOptions& options, double min_sqnr_db) {
  RecurrentOptions recurrent{.formats = {options.format}, .min_sqnr_db = min_sqnr_db + 3, .min_weights = options.min_weights, .gptq = options.needs_data()};
  if (bits_of(options.format.dtype) < 8) recurrent.formats.push_back({.dtype = DType::I8});
  store_recurrent_weights(edit, context, recurrent);
}

/// Layers whose few bits add most noise, with 8 bits instead.
class Widener {
 public:
  Widener(GraphEdit& edit, const Graph& original, const std::vector<WeightsPlan>& plan, std::vector<LayerReport>& reports, PassContext& context)
      : edit_(edit), graph_(edit.graph()), original_(original), plan_(plan), reports_(reports), context_(context) {}

  /// Until the outputs have `enough`. `tied`: layers that have 8 bits in any case.
  void run(const OutputJudge& judge, const std::map<size_t, ValueId>& tied, double enough) {
    for (size_t i = 0; i < plan_.size(); ++i)
      if (bits_of(plan_[i].format.dtype) < 8 && !tied.contains(i) && graph_.alive(plan_[i].layer.node)) left_.push_back(i);
    for (int round = 0;; ++round) {
      edit_.finish();
      const auto db = judge.decibels(graph_);
      if (!db || *db >= enough) return;
      const std::string has = std::to_string(static_cast<int>(std::lround(*db))) + " dB";
      if (left_.empty() || round == kWidenings) {
        context_.report.warnings.push_back("weights in few bits leave the outputs " + has + ", below quantize_weights.min_sqnr_db");
        return;
      }
      std::vector<LayerPlan> layers;
      std::vector<size_t> places;
      for (size_t i : left_) places.push_back(layers.size()), layers.push_back({plan_[i].layer, LayerForm::WeightOnly, plan_[i].report});
      const double keep = round + 1 == kWidenings ? 0 : std::pow(10.0, (*db - enough) / 10);
      std::set<size_t> chosen;
      for (size_t place : noisiest(measure_layers(original_, graph_, layers, {}, *context_.calibration), std::move(places), keep)) chosen.insert(left_[place]);
      for (size_t i : std::vector(left_))
        if (chosen.contains(i)) widen(i, "in fewer bits it was among those that added most noise while the outputs had only " + has);
    }
  }

 private:
  /// All that read the same weights go along.
  void widen(size_t index, const std::string& reason) {
    if (!std::erase(left_, index)) return;
    Layer layer = plan_[index].layer;
    const Tensor& weights = *original_.constant(layer.weights);
    const ValueId shared = layer.weights, before = graph_.node(layer.node).input(1);
    const WeightFormat format{DType::I8, plan_[index].format.block < 0 ? -1 : 0, true};
    const std::vector<float> values = read_weights(layer, weights);
    const CodedWeights codes = round_to_nearest(values, fit_grid(values, layer.out, layer.in * layer.taps, format, GridFit::LeastSquares));
    layer.weights = edit_.add_constant(weights);
    WeightsWriter(edit_).write_dequantized(layer, codes);
    edit_.replace_uses(before, graph_.node(layer.node).input(1));
    remove_unused(edit_, before);
    for (size_t i = 0; i < plan_.size(); ++i) {
      if (plan_[i].layer.weights != shared) continue;
      std::erase(left_, i);
      give_bias_back(plan_[i].layer);
      LayerReport& r = reports_[plan_[i].report];
      r.weights = describe(format);
      r.algorithm = "nearest";
      r.reason = reason;
      r.weight_sqnr_db = sqnr_db(values, decode(codes));
    }
  }

  /// What it took up was the few bits' error.
  void give_bias_back(const Layer& layer) {
    const LayerBias bias = find_bias(original_, layer);
    if (bias.node == kNone || !graph_.alive(bias.node)) return;
    const ValueId was = original_.node(bias.node).input(bias.input), is = graph_.node(bias.node).input(bias.input);
    if (was != is) edit_.set_input(bias.node, bias.input, was == kNone ? kNone : edit_.add_constant(*original_.constant(was)));
  }

  GraphEdit& edit_;
  const Graph& graph_;
  const Graph& original_;
  const std::vector<WeightsPlan>& plan_;
  std::vector<LayerReport>& reports_;
  PassContext& context_;
  std::vector<size_t> left_;  ///< layers in fewer than 8 bits
};

void round_and_write(GraphEdit& edit, const Graph& original, const std::vector<WeightsPlan>& plan, const std::vector<TablePlan>& tables, const std::map<size_t, ValueId>& tied,
                     const WeightsOptions& options, PassContext& context, std::vector<LayerReport>& reports) {
  WeightsWriter writer(edit);
  TablesWriter table_writer(edit);
  std::map<ValueId, size_t> written;  // weights that several layers multiply by have the codes of the first
  round_weights(original, plan, options, context, [&](size_t index, const CodedWeights& codes, const std::vector<float>& weights) {
    const WeightsPlan& p = plan[index];
    LayerReport& report = reports[p.report];
    report.weight_sqnr_db = sqnr_db(weights, decode(codes));
    report.algorithm = !p.moments ? "nearest" : options.gptq ? (options.awq ? "awq, gptq" : "gptq") : options.awq ? "awq" : "nearest";
    if (options.sparsity > 0 && p.moments) report_pruned(edit.graph(), p, codes, options, context.report);
    const auto first = written.find(p.layer.weights);
    if (first != written.end()) {
      const WeightsPlan& before = plan[first->second];
      edit.set_input(p.layer.node, 1, edit.graph().node(before.layer.node).input(1));
      report.weights = reports[before.report].weights;
      report.weight_sqnr_db = reports[before.report].weight_sqnr_db;
      return;
    }
    if (!codes.shift.empty()) shift_bias(edit, p.layer, codes.shift);
    if (tied.contains(index)) table_writer.write_layer(p.layer, tied.at(index), codes);
    else if (options.nbits && !p.layer.convolution && codes.grid.format.block > 0) writer.write_nbits(p.layer, codes);
    else writer.write_dequantized(p.layer, codes), written.emplace(p.layer.weights, index);
  });
  for (const TablePlan& t : tables) table_writer.write_lookup(t, options.fit);
  std::vector<Layer> layers;
  for (const WeightsPlan& p : plan) layers.push_back(p.layer);
  share_with_bodies(edit, layers);
  edit.finish();
}

void run(GraphEdit& edit, PassContext& context, const Options& given) {
  WeightsOptions options = WeightsOptions::of(given);
  options.format.signs = options.format.signs && context.profile.negative_scales;
  if (options.needs_data() && !context.calibration) throw Error(ErrorKind::Usage, "the step quantize_weights needs calibration data for " + given.text("algorithm") + ": give --calib DATA");
  const auto transposed = transpose_constants(edit);
  std::optional<OutputJudge> judge;
  if (context.calibration) {
    const int64_t judging = judging_samples(edit.graph(), context.calibration->observe(edit.graph()), kFewestJudges);
    if (options.gptq) options.hold_out = held_for_judging(judging, context.calibration->data().size());
    judge.emplace(edit.graph(), *context.calibration, context.threads, judging, options.hold_out);
  }
  store_recurrent(edit, context, options, given.number("min_sqnr_db"));
  std::vector<Observed> seen = context.calibration ? context.calibration->observe(edit.graph()) : std::vector<Observed>{};
  std::vector<LayerReport> reports;
  std::vector<WeightsPlan> plan = plan_weights(edit.graph(), context, options, seen, reports);
  if (options.awq) {
    ChannelScaler(edit, options, context).run(plan);
    seen = context.calibration->observe(edit.graph());
    reports.clear();
    plan = plan_weights(edit.graph(), context, options, seen, reports);
  }
  const std::vector<TablePlan> tables = plan_tables(edit.graph(), context, options);
  const std::map<size_t, ValueId> tied = tie_layers(edit.graph(), tables, plan, reports);
  const std::shared_ptr<Graph> original = edit.graph().clone();
  const auto write_all = [&] { round_and_write(edit, *original, plan, tables, tied, options, context, reports); };
  const EditLog log = edit.log();
  write_all();
  if (judge && options.gptq && options.biases && options.sparsity == 0) {
    const auto with = judge->decibels(edit.graph());
    if (with && *with < given.number("min_sqnr_db")) {  // means say little of samples of another scale
      const std::shared_ptr<Graph> corrected = edit.graph().clone();
      const EditLog corrected_log = edit.log();
      const std::vector<LayerReport> corrected_reports = reports;
      edit.restore(*original);
      edit.log() = log;
      options.biases = false;
      write_all();
      if (judge->decibels(edit.graph()).value_or(-300) < *with + kClearly) {
        edit.restore(*corrected);
        edit.log() = corrected_log;
        reports = corrected_reports;
      }
    }
  }
  if (judge) Widener(edit, *original, plan, reports, context).run(*judge, tied, given.number("min_sqnr_db"));
  restore_transposes(edit, transposed);
  for (LayerReport& report : reports) context.report.layers.push_back(std::move(report));
}

int64_t opset_of(const Graph& graph, const std::vector<GroupRule>& groups, const Options& given) {
  const WeightsOptions o = WeightsOptions::of(given);
  bool dequantizes = !o.nbits;
  for (NodeId id : graph.order()) dequantizes = dequantizes || graph.node(id).is("Conv") || graph.node(id).is("ConvTranspose");
  dequantizes = dequantizes || !find_recurrent_weights(graph, given.integer("min_weights")).empty();
  if (!dequantizes) return 13;
  size_t bits = bits_of(o.format.dtype);
  for (const GroupRule& g : groups)
    if (const DType type = weight_type(g.weights); type != DType::Undefined) bits = std::min<size_t>(bits, bits_of(type));
  if (bits == 2) return 25;
  return bits == 4 || o.format.block > 0 ? 21 : 13;
}

}  // namespace

PassDef pass_quantize_weights() {
  return {
      .name = "quantize_weights",
      .summary = "weights in few bits; activations stay as they are",
      .contract = Contract::Lossy,
      .options =
          {
              {.name = "type", .help = "of the weights' codes", .otherwise = std::string("int4"), .choices = {"int4", "uint4", "int8", "uint8", "int2", "uint2"}},
              {.name = "block_size", .help = "weights of an output channel that share a scale, a power of 2 from 16 on; 0: all of them", .otherwise = int64_t{32}, .least = 0, .most = 65536},
              {.name = "symmetric", .help = "no zero points; without it a type whose codes have an offset, uint4, gains", .otherwise = true},
              {.name = "algorithm",
               .help = "nearest needs no data; gptq rounds with the inputs in view; awq scales channels before",
               .otherwise = std::string("gptq"),
               .choices = {"nearest", "gptq", "awq", "awq_gptq"}},
              {.name = "fit", .help = "scales by the largest weights, or by the least error", .otherwise = std::string("least_squares"), .choices = {"extremes", "least_squares"}},
              {.name = "act_order", .help = "gptq: inputs with most energy first", .otherwise = true},
              {.name = "damp", .help = "gptq: added to the diagonal of the inputs' moments, as a share of its mean", .otherwise = 0.05, .least = 0, .most = 10},
              {.name = "negative_scales",
               .help = "symmetric int4 and int2: a scale may be negative, so that the lowest code, which has no counterpart, serves either end; for targets that take it",
               .otherwise = true},
              {.name = "weigh_places",
               .help = "gptq: places of a layer's output (words, pixels) count by what an error there costs the model's outputs, by gradients where there are",
               .otherwise = true},
              {.name = "bias_correction", .help = "gptq: biases take up what rounding does to the mean of a layer's output, and weights are rounded about their inputs' means", .otherwise = true},
              {.name = "sequential", .help = "gptq: with the inputs that the rounded layers before give", .otherwise = true},
              {.name = "sparsity", .help = "gptq: the share of the weights that goes in the same sweep, chosen by SparseGPT's price; 0: what is zero already stays so", .otherwise = 0.0, .least = 0, .most = 0.99},
              {.name = "pattern", .help = "with sparsity: anywhere, or 2 of each 4 input channels", .otherwise = std::string("unstructured"), .choices = {"unstructured", "2:4"}},
              {.name = "min_weights", .help = "layers with fewer stay as they are", .otherwise = int64_t{400}, .least = 1},
              {.name = "min_sqnr_db",
               .help = "what the outputs must keep on the first samples, where there is data; else the layers that add most noise get 8 bits",
               .otherwise = 10.0,
               .least = -100,
               .most = 200},
              {.name = "embeddings", .help = "form of tables that are looked up in", .otherwise = std::string("int8"), .choices = {"int8", "float"}},
              {.name = "form", .help = "qdq is the standard's; matmul_nbits is ONNX Runtime's own operator", .otherwise = std::string("qdq"), .choices = {"qdq", "matmul_nbits"}},
          },
      .needs_opset = 13,
      .run = run,
      .opset_for = opset_of,
  };
}

}  // namespace infopt
