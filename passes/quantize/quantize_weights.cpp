// Before: a float graph. After: its weights in few bits behind DequantizeLinear, or in com.microsoft's MatMulNBits; activations stay as they are.
//
// Rounded to nearest; by GPTQ (passes/support/gptq.h), each layer with the inputs that the rounded layers before it give; after AWQ's scaling
// (passes/support/awq.h) or not. Which layers, the recipe's groups and their sizes say.
#include <algorithm>
#include <cmath>
#include <map>

#include "calibration/calibration.h"
#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "passes/pass.h"
#include "passes/support/awq.h"
#include "passes/support/collect_moments.h"
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

/// Before the others: they are rounded for what these leave.
void store_recurrent(GraphEdit& edit, PassContext& context, const WeightsOptions& options, double min_sqnr_db) {
  RecurrentOptions recurrent{.formats = {options.format}, .min_sqnr_db = min_sqnr_db, .min_weights = options.min_weights, .gptq = options.needs_data()};
  if (bits_of(options.format.dtype) < 8) recurrent.formats.push_back({.dtype = DType::I8});
  store_recurrent_weights(edit, context, recurrent);
}

void run(GraphEdit& edit, PassContext& context, const Options& given) {
  const WeightsOptions options = WeightsOptions::of(given);
  if (options.needs_data() && !context.calibration) throw Error(ErrorKind::Usage, "the step quantize_weights needs calibration data for " + given.text("algorithm") + ": give --calib DATA");
  transpose_constants(edit);
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
  WeightsWriter writer(edit);
  TablesWriter table_writer(edit);
  std::map<ValueId, size_t> written;  // weights that several layers multiply by have the codes of the first
  round_weights(*original, plan, options, context, [&](size_t index, const CodedWeights& codes, const std::vector<float>& weights) {
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
    if (tied.contains(index)) table_writer.write_layer(p.layer, tied.at(index), codes);
    else if (options.nbits && !p.layer.convolution && codes.grid.format.block > 0) writer.write_nbits(p.layer, codes);
    else writer.write_dequantized(p.layer, codes), written.emplace(p.layer.weights, index);
  });
  for (const TablePlan& t : tables) table_writer.write_lookup(t, options.fit);
  std::vector<Layer> layers;
  for (const WeightsPlan& p : plan) layers.push_back(p.layer);
  share_with_bodies(edit, layers);
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
              {.name = "sequential", .help = "gptq: with the inputs that the rounded layers before give", .otherwise = true},
              {.name = "sparsity", .help = "gptq: the share of the weights that goes in the same sweep, chosen by SparseGPT's price; 0: what is zero already stays so", .otherwise = 0.0, .least = 0, .most = 0.99},
              {.name = "pattern", .help = "with sparsity: anywhere, or 2 of each 4 input channels", .otherwise = std::string("unstructured"), .choices = {"unstructured", "2:4"}},
              {.name = "min_weights", .help = "layers with fewer stay as they are", .otherwise = int64_t{400}, .least = 1},
              {.name = "min_sqnr_db",
               .help = "what the weights of LSTM, GRU, RNN and of loops, rounded to nearest, must leave of the outputs by themselves; else those that cost most get 8 bits, and then stay in float",
               .otherwise = 23.0,
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
