// Before: a float graph. After: Conv, Gemm and MatMul with constant weights read 8-bit floats behind QuantizeLinear/DequantizeLinear: weights with a
// scale for each output channel, activations with one for the tensor, from calibration. Everything between stays in float.
//
// The formats are those of the OCP 8-bit Floating Point Specification 1.0. A scale makes the largest magnitude the format's largest
// value; relative precision is the same over most of the range, so that outliers cost little and nothing need be corrected.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "calibration/calibration.h"
#include "calibration/observer.h"
#include "lib/base/error.h"
#include "lib/base/float8.h"
#include "passes/pass.h"
#include "passes/support/groups.h"
#include "passes/support/layers.h"
#include "passes/support/signal_to_noise.h"

namespace infopt {
namespace {

/// What becomes of a layer; `report` is its place in the reports.
struct Float8Layer {
  Layer layer;
  size_t report = 0;
  bool activations = false;
};

struct CodedFloats {
  std::vector<int8_t> codes;  ///< the bits, W[out][in][tap]
  std::vector<float> scales;
  std::optional<double> sqnr_db;
};

float rounded(float value, DType type) { return to_scalar<float>(cast(Tensor::scalar(value), type)); }

/// largest / the format's largest value, as `type` can hold it; 1 where all is zero.
float scale_of(double largest, DType format, DType type) {
  if (!(largest > 0)) return 1;
  const double most = format == DType::F8E4M3FN ? 448.0 : 57344.0;
  const float least = type == DType::F16 ? 0x1p-14f : 0x1p-126f;  // the type's least normal number
  return std::max(rounded(static_cast<float>(largest / most), type), least);
}

CodedFloats encode(const Layer& layer, const std::vector<float>& weights, bool per_channel, DType format, DType type) {
  CodedFloats out;
  const size_t each = per_channel ? weights.size() / static_cast<size_t>(layer.out) : weights.size();
  double signal = 0, noise = 0;
  for (size_t from = 0; from < weights.size(); from += each) {
    double largest = 0;
    for (size_t i = from; i < from + each; ++i) {
      if (!std::isfinite(weights[i])) throw Error(ErrorKind::Malformed, "its weights have a NaN or an infinity");
      largest = std::max(largest, std::fabs(static_cast<double>(weights[i])));
    }
    const float scale = scale_of(largest, format, type);
    out.scales.push_back(scale);
    for (size_t i = from; i < from + each; ++i) {
      const uint8_t code = encode_small_float(format, weights[i] / scale);
      const double w = static_cast<double>(weights[i]), d = static_cast<double>(decode_small_float(format, code) * scale) - w;
      out.codes.push_back(static_cast<int8_t>(code));
      signal += w * w;
      noise += d * d;
    }
  }
  out.sqnr_db = sqnr_db(signal, noise);
  return out;
}

class Float8Pass {
 public:
  Float8Pass(GraphEdit& edit, PassContext& context, const Options& options)
      : edit_(edit), graph_(edit.graph()), context_(context), format_(options.text("type") == "float8e4m3fn" ? DType::F8E4M3FN : DType::F8E5M2),
        per_channel_(options.flag("per_channel")), static_(options.text("activations") == "static"), min_weights_(options.integer("min_weights")) {}

  void run() {
    if (context_.calibration) seen_ = context_.calibration->observe(graph_);
    plan();
    if (static_) collect();
    for (const Float8Layer& l : layers_) write(l);
    if (static_ && !context_.calibration->obstacles().empty())
      context_.report.warnings.push_back(listed(context_.calibration->obstacles()) + "; of layers that lie behind, the weights alone become float8");
    for (LayerReport& r : reports_) context_.report.layers.push_back(std::move(r));
  }

 private:
  void plan() {
    const std::vector<const GroupRule*> groups = assign_groups(graph_, context_.groups);
    for (NodeId id : graph_.order()) {
      const Node& n = graph_.node(id);
      const auto layer = layer_of(graph_, id);
      auto r = product_report(graph_, n, layer, seen_);
      if (!r) continue;
      if (layer) judge(n, *layer, groups[static_cast<size_t>(id)], *r);
      reports_.push_back(std::move(*r));
    }
  }

  /// Fills in form and reason, and adds the layer where it is quantized.
  void judge(const Node& n, const Layer& layer, const GroupRule* rule, LayerReport& r) {
    const std::string wish = rule ? rule->weights : "", activations = rule ? rule->activations : "";
    if (r.weight_elements < min_weights_) {
      r.reason = "too few weights to gain from it";
    } else if ((!wish.empty() && wish != "float8") || (rule && rule->form == "float")) {
      r.reason = "group " + rule->name + " keeps its weights in " + (wish.empty() ? "float" : wish);
    } else {
      const bool computed = !seen_.empty() && seen_[static_cast<size_t>(n.input(0))].dtype != DType::Undefined;
      const bool free = activations.empty() || activations == "float8";
      const bool quantizes = static_ && free && computed;
      r.form = quantizes ? LayerForm::Float8 : LayerForm::WeightOnly;
      r.weights = std::string(name_of(format_)) + (scale_per_channel(layer) ? ", per channel" : ", one scale");
      r.reason = wish.empty() ? "asked for" : "group " + rule->name;
      if (static_ && !free) r.reason += "; group " + rule->name + " keeps its activations in " + activations;
      else if (static_ && !computed) r.reason += "; its input can't be calibrated: it lies behind what infopt can't run";
      layers_.push_back({layer, reports_.size(), quantizes});
    }
  }

  /// A transposed convolution in groups stores channels of all groups on one axis, where no vector of scales can tell them apart.
  bool scale_per_channel(const Layer& l) const { return per_channel_ && !(l.transposed && l.groups > 1); }

  void collect() {
    std::map<ValueId, int64_t> wanted;
    for (const Float8Layer& l : layers_)
      if (l.activations) wanted.emplace(graph_.node(l.layer.node).input(0), l.layer.input_axis);
    std::vector<CollectRequest> requests;
    for (const auto& [value, axis] : wanted) requests.push_back({value, axis});
    const StatisticsSet& statistics = context_.calibration->collect(graph_, requests);
    ObserverOptions o;
    o.percentile = context_.percentile;
    o.symmetric = true;
    for (const auto& [value, axis] : wanted) {
      const Range range = find_observer(context_.method).range(statistics.tensors.at(value), o);
      largest_[value] = std::max(std::fabs(range.low), std::fabs(range.high));
    }
  }

  void write(const Float8Layer& l) {
    const ValueId x = graph_.node(l.layer.node).input(0);
    const Tensor old = *graph_.constant(l.layer.weights);
    LayerReport& r = reports_[l.report];
    CodedFloats coded;
    try {
      coded = encode(l.layer, read_weights(l.layer, old), scale_per_channel(l.layer), format_, old.dtype());
    } catch (const Error& e) {
      throw e.within(r.node);
    }
    r.weight_sqnr_db = coded.sqnr_db;
    const Tensor bits = write_weights(l.layer, old.shape(), coded.codes);
    Tensor codes(format_, old.shape());
    std::memcpy(codes.mutable_raw(), bits.raw(), bits.bytes());
    const bool channels = scale_per_channel(l.layer);
    GraphEdit::NewNode node{.op = "DequantizeLinear"};
    if (channels) node.attributes = {{"axis", l.layer.out_axis, {}}};
    const Tensor scales = channels ? Tensor::vector(coded.scales) : Tensor::scalar(coded.scales[0]);
    const ValueId scale = edit_.add_constant(cast(scales, old.dtype()));
    edit_.set_input(l.layer.node, 1, edit_.add(std::move(node), {edit_.add_constant(std::move(codes)), scale, zero(channels ? l.layer.out : -1)}));
    if (l.activations) edit_.set_input(l.layer.node, 0, round_trip(x, old.dtype()));
  }

  /// The value through float8 and back, once for all its readers.
  ValueId round_trip(ValueId x, DType type) {
    auto [it, fresh] = trips_.emplace(x, kNone);
    if (!fresh) return it->second;
    const ValueId scale = edit_.add_constant(cast(Tensor::scalar(scale_of(largest_.at(x), format_, type)), type));
    const ValueId codes = edit_.add({.op = "QuantizeLinear"}, {x, scale, zero(-1)});
    return it->second = edit_.add({.op = "DequantizeLinear"}, {codes, scale, zero(-1)});
  }

  /// A vector of zeros, or a scalar for −1.
  ValueId zero(int64_t count) {
    auto [it, fresh] = zeros_.emplace(count, kNone);
    if (fresh) it->second = edit_.add_constant(Tensor::zeros(format_, count < 0 ? Shape{} : Shape{count}));
    return it->second;
  }

  GraphEdit& edit_;
  const Graph& graph_;
  PassContext& context_;
  const DType format_;
  const bool per_channel_, static_;
  const int64_t min_weights_;
  std::vector<Observed> seen_;
  std::vector<Float8Layer> layers_;
  std::vector<LayerReport> reports_;
  std::map<ValueId, double> largest_;
  std::map<ValueId, ValueId> trips_;
  std::map<int64_t, ValueId> zeros_;
};

void run(GraphEdit& edit, PassContext& context, const Options& options) {
  if (options.text("activations") == "static" && !context.calibration)
    throw Error(ErrorKind::Usage, "the step quantize_float8 needs calibration data for static activations: give --calib DATA, or set quantize_float8.activations=none");
  Float8Pass(edit, context, options).run();
}

}  // namespace

PassDef pass_quantize_float8() {
  return {
      .name = "quantize_float8",
      .summary = "8-bit floats for weights and activations of convolutions and products",
      .contract = Contract::Lossy,
      .options =
          {
              {.name = "type", .help = "e4m3 has digits, e5m2 range", .otherwise = std::string("float8e4m3fn"), .choices = {"float8e4m3fn", "float8e5m2"}},
              {.name = "activations", .help = "static: a scale for the tensor from calibration; none: weights alone", .otherwise = std::string("static"), .choices = {"static", "none"}},
              {.name = "per_channel", .help = "a scale for each output channel of a weight", .otherwise = true},
              {.name = "min_weights", .help = "layers with fewer stay as they are", .otherwise = int64_t{400}, .least = 1},
          },
      .needs_opset = 19,
      .run = run,
  };
}

}  // namespace infopt
