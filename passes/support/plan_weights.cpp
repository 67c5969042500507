#include "passes/support/plan_weights.h"

#include "lib/base/error.h"
#include "passes/support/groups.h"
#include "passes/support/input_moments.h"

namespace infopt {
namespace {

constexpr struct {
  const char* name;
  DType type;
} kTypes[] = {{"int2", DType::I2}, {"uint2", DType::U2}, {"int4", DType::I4}, {"uint4", DType::U4}, {"int8", DType::I8}, {"uint8", DType::U8}};

/// Scales as the stored form can hold them: blocks along one stored axis, or one scale for each output channel.
WeightFormat fitted(const Layer& layer, WeightFormat format, bool nbits) {
  if (layer.convolution && (layer.taps != 1 || layer.transposed)) format.block = 0;
  if (layer.transposed && layer.groups > 1) format.block = -1;
  if (format.block >= layer.in * layer.taps && (layer.convolution || !nbits)) format.block = 0;
  return format;
}

}  // namespace

DType weight_type(const std::string& name) {
  for (const auto& t : kTypes)
    if (name == t.name) return t.type;
  return DType::Undefined;
}

std::string describe(const WeightFormat& format) {
  std::string text;
  for (const auto& t : kTypes)
    if (format.dtype == t.type) text = t.name;
  return text + (format.block > 0 ? ", blocks of " + std::to_string(format.block) : format.block == 0 ? ", per channel" : ", one scale");
}

WeightsOptions WeightsOptions::of(const Options& options) {
  WeightsOptions o;
  const std::string& algorithm = options.text("algorithm");
  o.format = {weight_type(options.text("type")), options.integer("block_size"), options.flag("symmetric")};
  o.gptq = algorithm == "gptq" || algorithm == "awq_gptq";
  o.awq = algorithm == "awq" || algorithm == "awq_gptq";
  o.biases = o.gptq && options.flag("bias_correction");
  o.weighs_places = options.flag("weigh_places");
  o.format.signs = options.flag("negative_scales");
  o.fit = options.text("fit") == "extremes" ? GridFit::Extremes : GridFit::LeastSquares;
  o.act_order = options.flag("act_order");
  o.sequential = options.flag("sequential");
  o.nbits = options.text("form") == "matmul_nbits";
  o.damp = options.number("damp");
  o.min_weights = options.integer("min_weights");
  o.int8_tables = options.text("embeddings") == "int8";
  o.sparsity = options.number("sparsity");
  if (options.text("pattern") == "2:4") o.pattern.kind = PrunePattern::Kind::NM;
  if (o.sparsity > 0 && !o.gptq) throw Error(ErrorKind::Usage, "quantize_weights.sparsity: only gptq prunes as it rounds; prune_weights before this step serves " + algorithm);
  const int64_t block = o.format.block;
  if (block != 0 && (block < 16 || (block & (block - 1)) != 0)) throw Error(ErrorKind::Usage, "quantize_weights.block_size is 0 or a power of 2 from 16 on, not " + std::to_string(block));
  if (o.nbits && block == 0) throw Error(ErrorKind::Usage, "quantize_weights: MatMulNBits has blocks; give block_size 16, 32, 64 or 128");
  return o;
}

std::vector<WeightsPlan> plan_weights(const Graph& graph, const PassContext& context, const WeightsOptions& options, const std::vector<Observed>& seen, std::vector<LayerReport>& reports) {
  std::vector<WeightsPlan> plans;
  const std::vector<const GroupRule*> groups = assign_groups(graph, context.groups);
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    const auto layer = layer_of(graph, id);
    auto begun = product_report(graph, n, layer, seen);
    if (!begun) continue;
    LayerReport& r = reports.emplace_back(std::move(*begun));
    if (!layer) continue;
    const GroupRule* rule = groups[static_cast<size_t>(id)];
    const std::string wish = rule ? rule->weights : "";
    if (r.weight_elements < options.min_weights) {
      r.reason = "too few weights to gain from it";
    } else if ((!wish.empty() && weight_type(wish) == DType::Undefined) || (rule && rule->form == "float")) {
      r.reason = "group " + rule->name + " keeps its weights in " + (wish.empty() ? "float" : wish);
    } else {
      WeightFormat format = options.format;
      if (!wish.empty()) format.dtype = weight_type(wish);
      WeightsPlan p{*layer, fitted(*layer, format, options.nbits), reports.size() - 1};
      const bool computed = !seen.empty() && seen[static_cast<size_t>(n.input(0))].dtype != DType::Undefined;
      p.moments = options.needs_data() && computed && InputMoments::possible(*layer);
      r.form = LayerForm::WeightOnly;
      r.weights = describe(p.format);
      r.reason = !wish.empty() ? "group " + rule->name : "asked for";
      if (options.needs_data() && !p.moments) r.reason += computed ? "; rounded to nearest: a transposed convolution" : "; rounded to nearest: its input can't be computed";
      plans.push_back(std::move(p));
    }
  }
  return plans;
}

}  // namespace infopt
