#include "passes/support/plan_float16.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "calibration/calibration.h"
#include "lib/onnx/signature.h"
#include "lib/runtime/session.h"
#include "passes/support/groups.h"
#include "passes/support/layers.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

using Names = std::set<std::string, std::less<>>;

/// Their results need float32's range or digits.
const Names kPrecise{"Pow",
                     "Exp",
                     "Log",
                     "Reciprocal",
                     "CumSum",
                     "CumProd",
                     "ReduceSum",
                     "ReduceSumSquare",
                     "ReduceL1",
                     "ReduceL2",
                     "ReduceLogSum",
                     "ReduceLogSumExp",
                     "ReduceProd",
                     "Sin",
                     "Cos",
                     "Tan",
                     "Range",
                     "GridSample",
                     "AffineGrid",
                     "RoiAlign",
                     "DFT",
                     "STFT",
                     "Det",
                     "LpNormalization",
                     "LpPool",
                     "GlobalLpPool",
                     "MeanVarianceNormalization"};
/// Their results are chosen, or their element type is, by an attribute or a generator.
const Names kRandom{"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli",      "Multinomial",
                    "EyeLike",      "HannWindow",       "HammingWindow", "BlackmanWindow",    "MelWeightMatrix"};
/// They move elements about.
const Names kMoves{"Reshape", "Transpose", "Unsqueeze",      "Squeeze",  "Flatten", "Expand", "Identity",     "Slice",        "Concat",
                   "Split",   "Gather",    "GatherElements", "GatherND", "Tile",    "Pad",    "DepthToSpace", "SpaceToDepth", "Dropout"};
/// An operand beyond float16's range can make their result as large.
const Names kCarries{"Where", "Add", "Sub", "Mul", "Neg", "Min", "Max", "Sum", "Abs", "CastLike", "Cast"};
/// What lies between integer positions and what is computed from them.
const Names kArithmetic{"Add",   "Sub",  "Mul",   "Div", "MatMul", "Neg", "Floor", "Ceil",
                        "Round", "Sqrt", "Where", "Min", "Max",    "Mod", "Einsum"};

bool in(const Names& names, const Node& n) { return n.domain.empty() && names.contains(n.op); }

/// The float32 inputs and outputs that may be of the type, where the operator can compute in it at all.
Float16Plan::Ports ports_of(const Graph& graph, const Node& n, const Signature& s, DType type) {
  Float16Plan::Ports p{std::vector<bool>(n.inputs.size()), std::vector<bool>(n.outputs.size())};
  auto fits = [&](ValueId v, const std::vector<DType>& allowed) {
    return v != kNone && dtype_of_value(graph, v) == DType::F32 && std::find(allowed.begin(), allowed.end(), type) != allowed.end();
  };
  for (size_t i = 0; i < n.inputs.size(); ++i) p.inputs[i] = fits(n.inputs[i], s.inputs[i]) && !(n.is("Resize") && i > 0);
  for (size_t i = 0; i < n.outputs.size(); ++i) p.outputs[i] = fits(n.outputs[i], s.outputs[i]) && !(n.is("LayerNormalization") && i > 0);
  return p;
}

bool is_half(DType t) { return t == DType::F16 || t == DType::BF16; }

/// Of the node's first output, which it may leave out.
const std::vector<Use>& result_uses(const Graph& graph, const Node& n) {
  static const std::vector<Use> none;
  return n.outputs.empty() || n.outputs[0] == kNone ? none : graph.value(n.outputs[0]).uses;
}

class Planner {
 public:
  Planner(const Graph& graph, PassContext& context, DType type)
      : graph_(graph), context_(context), type_(type), reasons_(graph.node_capacity()) {
    plan_.compute.resize(graph.node_capacity(), DType::Undefined);
    plan_.store = plan_.compute;
    plan_.ports.resize(graph.node_capacity());
    plan_.wide.resize(graph.value_capacity());
  }

  Float16Plan make() {
    ask();
    for (NodeId id : graph_.order()) judge(graph_.node(id));
    keep_squares();
    keep_positions();
    const bool computes =
        std::any_of(graph_.order().begin(), graph_.order().end(), [&](NodeId id) { return !stays(id) && wanted(id) == DType::F16; });
    if (context_.calibration && computes) measure();
    keep_wide();
    keep_islands();
    keep_batch_transposes();
    for (NodeId id : graph_.order()) conclude(id);
    return std::move(plan_);
  }

 private:
  DType& wanted(NodeId id) { return plan_.compute[static_cast<size_t>(id)]; }
  const std::string& reason(NodeId id) const { return reasons_[static_cast<size_t>(id)]; }
  bool stays(NodeId id) const { return plan_.compute[static_cast<size_t>(id)] == DType::Undefined || !reason(id).empty(); }
  void keep(NodeId id, const std::string& why) {
    if (reason(id).empty()) reasons_[static_cast<size_t>(id)] = why;
  }

  void ask();
  void judge(const Node& n);
  std::string objection(const Node& n);
  std::string constant_objection(const Node& n);
  const HalfFit& fit(ValueId constant, DType type);
  void keep_squares();
  void keep_after_square(const Node& reduction);
  void keep_positions();
  void measure();
  void keep_wide();
  void keep_islands();
  void keep_batch_transposes();
  void conclude(NodeId id);

  const Graph& graph_;
  PassContext& context_;
  DType type_;
  Float16Plan plan_;
  std::vector<std::string> reasons_;
  std::map<std::pair<ValueId, DType>, HalfFit> fits_;
};

/// What the recipe wants of each node.
void Planner::ask() {
  const auto rules = assign_groups(graph_, context_.groups);
  for (NodeId id : graph_.order()) {
    const auto n = static_cast<size_t>(id);
    if (graph_.node(id).is("Constant")) continue;
    if (context_.groups.empty()) {
      plan_.compute[n] = plan_.store[n] = type_;
      continue;
    }
    if (!rules[n]) continue;
    const DType activations = dtype_from_name(rules[n]->activations), weights = dtype_from_name(rules[n]->weights);
    if (is_half(activations)) plan_.compute[n] = plan_.store[n] = activations;
    else if (is_half(weights)) plan_.store[n] = weights;
    // A lookup moves rows: the narrow ones are widened after it.
    if (is_half(weights) && graph_.node(id).is("Gather") && graph_.constant(graph_.node(id).input(0))) plan_.compute[n] = weights;
  }
}

void Planner::judge(const Node& n) {
  if (wanted(n.id) == DType::Undefined) return;
  std::string why = objection(n);
  if (why.empty()) why = constant_objection(n);
  if (!why.empty()) keep(n.id, why);
}

std::string Planner::objection(const Node& n) {
  if (n.is("QuantizeLinear") || n.is("DequantizeLinear") || n.is("DynamicQuantizeLinear")) return "it is quantized";
  if (!n.bodies().empty()) return "it has a body";
  const auto signature = signature_of(graph_, n);
  if (!signature) return "its operator isn't in ONNX's standard";
  for (const auto* list : {&n.inputs, &n.outputs})
    for (ValueId v : *list)
      if (v != kNone && dtype_of_value(graph_, v) == DType::Undefined) return "its types aren't known";
  const bool integer = std::any_of(n.inputs.begin(), n.inputs.end(), [&](ValueId v) {
    const Node* p = v == kNone ? nullptr : graph_.producer(v);
    return p && p->is("DequantizeLinear") && !graph_.constant(p->input(0));
  });
  const auto feeds_quantize = [&](ValueId v) {
    const auto& uses = graph_.value(v).uses;
    return !uses.empty() &&
           std::all_of(uses.begin(), uses.end(), [&](const Use& u) { return u.index >= 0 && graph_.node(u.node).is("QuantizeLinear"); });
  };
  if (integer || (!n.outputs.empty() && n.outputs[0] != kNone && feeds_quantize(n.outputs[0]))) return "it is quantized";
  auto& ports = plan_.ports[static_cast<size_t>(n.id)] = ports_of(graph_, n, *signature, wanted(n.id));
  const DType from = n.is("Cast") ? dtype_of_value(graph_, n.input(0)) : DType::Undefined;
  // Bools are exact in any type; integers and what is wider are cast to float32 first.
  if (n.is("Cast") && from != DType::Bool && from != DType::F32) return "it makes float32 of " + std::string(name_of(from));
  const bool any =
      std::count(ports.inputs.begin(), ports.inputs.end(), true) + std::count(ports.outputs.begin(), ports.outputs.end(), true) > 0;
  if (!any) return "ONNX's opset " + std::to_string(graph_.opset()) + " has no " + n.op + " of " + std::string(name_of(wanted(n.id)));
  const bool fixed = !n.outputs.empty() && n.outputs[0] != kNone && dtype_of_value(graph_, n.outputs[0]) == DType::F32 && !ports.outputs[0];
  if (fixed) return "its result is float32 in any case";
  if (in(kRandom, n)) return "it makes values of its own";
  return in(kPrecise, n) ? n.op + " overflows or loses digits" : "";
}

const HalfFit& Planner::fit(ValueId constant, DType type) {
  const auto [it, fresh] = fits_.try_emplace({constant, type});
  if (fresh) it->second = half_fit(*graph_.constant(constant), type);
  return it->second;
}

std::string Planner::constant_objection(const Node& n) {
  const auto& ports = plan_.ports[static_cast<size_t>(n.id)];
  for (size_t i = 0; i < n.inputs.size(); ++i) {
    if (!ports.inputs[i] || !graph_.constant(n.inputs[i])) continue;
    const HalfFit& f = fit(n.inputs[i], wanted(n.id));
    const std::string what = "its constant '" + graph_.value(n.inputs[i]).name + "' ";
    if (f.overflows) return what + "is out of " + std::string(name_of(wanted(n.id))) + "'s range";
    const bool bias = i == 2 && (n.is("Conv") || n.is("ConvTranspose") || n.is("Gemm"));
    if (!f.faithful && !bias) return what + "is too small for " + std::string(name_of(wanted(n.id)));
  }
  return "";
}

/// Means and sums of squares, and what is made of them up to the division by their root.
void Planner::keep_squares() {
  for (NodeId id : graph_.order()) {
    const Node& n = graph_.node(id);
    const bool square = n.is("Pow") || (n.is("Mul") && n.input(0) == n.input(1) && n.input(0) != kNone);
    if (square)
      for (const Use& u : result_uses(graph_, n))
        if (u.index >= 0 && (graph_.node(u.node).is("ReduceMean") || graph_.node(u.node).is("ReduceSum"))) {
          keep(id, "its squares are averaged");
          keep_after_square(graph_.node(u.node));
        }
    if (n.is("ReduceL2") || n.is("ReduceSumSquare")) keep_after_square(n);
  }
}

void Planner::keep_after_square(const Node& reduction) {
  static const Names kUp{"Sqrt", "Reciprocal", "Clip", "Expand", "Pow", "Unsqueeze", "Squeeze"},
      kBinary{"Add", "Sub", "Max", "Min", "Mul", "Div"};
  std::vector<const Node*> todo{&reduction};
  while (!todo.empty()) {
    const Node& n = *todo.back();
    todo.pop_back();
    keep(n.id, "it is part of a mean of squares");
    for (const Use& u : result_uses(graph_, n)) {
      if (u.index < 0) continue;
      const Node& reader = graph_.node(u.node);
      if (!reason(reader.id).empty() && reason(reader.id) == "it is part of a mean of squares") continue;
      const bool beside_scalar = in(kBinary, reader) && (scalar(graph_, reader.input(0)) || scalar(graph_, reader.input(1)));
      if (in(kUp, reader) || beside_scalar) todo.push_back(&reader);
      else if (reader.is("Mul") || reader.is("Div")) keep(reader.id, "it divides by a root of squares");
    }
  }
}

/// float16 has no odd integers above 2048.
void Planner::keep_positions() {
  std::vector<bool> position(graph_.value_capacity());
  for (NodeId id : graph_.order()) {
    const Node& n = graph_.node(id);
    if (n.outputs.empty() || n.outputs[0] == kNone || dtype_of_value(graph_, n.outputs[0]) != DType::F32) continue;
    bool is_position = n.is("Range") || (n.is("Cast") && is_integer(dtype_of_value(graph_, n.input(0))));
    if (!is_position && (in(kArithmetic, n) || in(kMoves, n))) {
      bool some = false, all = true;
      for (ValueId v : n.inputs) {
        if (v == kNone || dtype_of_value(graph_, v) != DType::F32) continue;
        if (position[static_cast<size_t>(v)]) some = true;
        else if (!graph_.constant(v)) all = false;
      }
      is_position = some && all;
      if (is_position) keep(id, "it computes with integers");
    }
    if (is_position)
      for (ValueId o : n.outputs)
        if (o != kNone) position[static_cast<size_t>(o)] = true;
  }
}

/// The values that come close to float16's range in the first samples of the calibration data.
void Planner::measure() {
  constexpr int64_t kSamples = 32;
  constexpr float kLimit = 65504.0f / 4;
  SessionOptions options;
  options.fuse = false;
  for (NodeId id : graph_.order())
    for (ValueId v : graph_.node(id).outputs)
      if (v != kNone && dtype_of_value(graph_, v) == DType::F32) options.taps.push_back(v);
  for (ValueId v : graph_.inputs())
    if (dtype_of_value(graph_, v) == DType::F32) options.taps.push_back(v);
  const Session session(graph_, options);
  const Tap tap = [&](ValueId v, const Tensor& t, Layout) {
    if (plan_.wide[static_cast<size_t>(v)] || t.dtype() != DType::F32) return;
    const auto all = t.span<float>();
    // Infinities are the same in float16.
    plan_.wide[static_cast<size_t>(v)] =
        std::any_of(all.begin(), all.end(), [](float x) { return std::fabs(x) > kLimit && std::isfinite(x); });
  };
  DataSet& data = context_.calibration->data();
  data.reset();
  Sample sample;
  for (int64_t i = 0; i < kSamples && data.next(sample); ++i) session.run(sample.inputs, tap);
}

/// A wide value is never cast down: who makes it and who reads it stays.
void Planner::keep_wide() {
  const auto is_wide = [&](ValueId v) { return v != kNone && plan_.wide[static_cast<size_t>(v)]; };
  for (size_t v = 0; v < graph_.value_capacity(); ++v) {
    const auto id = static_cast<ValueId>(v);
    if (graph_.value_alive(id) && graph_.constant(id) && dtype_of_value(graph_, id) == DType::F32 && fit(id, type_).overflows)
      plan_.wide[v] = true;
  }
  for (NodeId id : graph_.order()) {
    const Node& n = graph_.node(id);
    for (ValueId v : n.outputs)
      if (is_wide(v)) keep(id, "its result comes close to float16's largest number");
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      if (!is_wide(n.inputs[i]) || takes_any_type(n, i)) continue;
      keep(id, "'" + graph_.value(n.inputs[i]).name + "' comes close to float16's largest number");
      const bool carries = in(kCarries, n) || in(kMoves, n) || (n.is("Div") && i == 0);
      const bool same_type = carries && !n.outputs.empty() && n.outputs[0] != kNone && dtype_of_value(graph_, n.outputs[0]) == DType::F32;
      if (same_type) plan_.wide[static_cast<size_t>(n.outputs[0])] = true;
    }
  }
}

/// Nothing is gained by moving 16-bit elements between operators in float32.
void Planner::keep_islands() {
  const auto feeds_float = [&](const Node& n) {
    const auto& uses = result_uses(graph_, n);
    return !uses.empty() && std::all_of(uses.begin(), uses.end(), [&](const Use& u) { return u.index >= 0 && stays(u.node); });
  };
  std::vector<NodeId> order = graph_.order();
  std::vector<bool> fed(graph_.node_capacity());
  for (NodeId id : order) {
    const Node& n = graph_.node(id);
    if (!in(kMoves, n) || n.is("Concat") || n.input(0) == kNone) continue;
    const Node* p = graph_.producer(n.input(0));
    fed[static_cast<size_t>(id)] = p && (stays(p->id) || fed[static_cast<size_t>(p->id)]) && !graph_.constant(n.input(0));
  }
  std::reverse(order.begin(), order.end());
  for (NodeId id : order)
    if (fed[static_cast<size_t>(id)] && !stays(id) && feeds_float(graph_.node(id))) keep(id, "it moves float32 only");
}

/// ONNX Runtime (1.32) computes products in float32 behind a Cast of its own, and ends with a segmentation fault where it finds a Transpose that moves
/// the first axis and not the last, that Cast, and a MatMul with constant weights. In float32 such a Transpose is safe.
void Planner::keep_batch_transposes() {
  for (NodeId id : graph_.order()) {
    const Node& n = graph_.node(id);
    if (!n.is("Transpose") || stays(id)) continue;
    const auto* perm = n.get<std::vector<int64_t>>("perm");
    if (!perm || perm->size() < 3 || perm->front() == 0 || perm->back() != static_cast<int64_t>(perm->size()) - 1) continue;
    const auto& uses = result_uses(graph_, n);
    const bool product = std::any_of(uses.begin(), uses.end(), [&](const Use& u) { return u.index >= 0 && graph_.node(u.node).is("MatMul") && !stays(u.node); });
    if (product) keep(id, "ONNX Runtime fails at a product of what it makes");
  }
}

void Planner::conclude(NodeId id) {
  const Node& n = graph_.node(id);
  const auto i = static_cast<size_t>(id);
  const DType asked = plan_.compute[i];
  if (stays(id)) plan_.compute[i] = DType::Undefined;
  const bool widens = n.is("Cast") && is_half(dtype_of_value(graph_, n.input(0)));
  if (asked == DType::Undefined || reason(id).empty() || widens) return;
  const auto is_float32 = [&](ValueId v) { return v != kNone && dtype_of_value(graph_, v) == DType::F32; };
  if (std::any_of(n.inputs.begin(), n.inputs.end(), is_float32) || std::any_of(n.outputs.begin(), n.outputs.end(), is_float32))
    plan_.notes.push_back("'" + graph_.label(id) + "' stays in float32: " + reason(id));
}

}  // namespace

bool takes_any_type(const Node& node, size_t index) { return index == 0 && (node.is("Shape") || node.is("Size") || node.is("Cast")); }

HalfFit half_fit(const Tensor& constant, DType type) {
  HalfFit fit;
  if (constant.dtype() != DType::F32) return fit;
  const float normal = type == DType::F16 ? 6.103515625e-05f : 1.17549435e-38f;
  double signal = 0, noise = 0;
  for (float x : constant.span<float>()) {
    const float y = type == DType::F16 ? to_float(to_half(x)) : to_float(to_bfloat16(x));
    if (!std::isfinite(x)) continue;
    if (!std::isfinite(y)) fit.overflows = true;
    if (x != 0 && std::fabs(x) < normal) ++fit.subnormal;
    const double error = static_cast<double>(y) - x;
    signal += static_cast<double>(x) * x;
    noise += error * error;
  }
  // bfloat16's own rounding is above that bound, and its range is float32's.
  fit.faithful = type != DType::F16 || !(noise > signal * 1e-6);
  return fit;
}

Float16Plan plan_float16(const Graph& graph, PassContext& context, DType type) { return Planner(graph, context, type).make(); }

}  // namespace infopt
