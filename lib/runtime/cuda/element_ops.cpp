#include "lib/runtime/cuda/element_ops.h"

#include <limits>

#include "lib/base/error.h"
#include "lib/ops/elementwise.h"

namespace infopt::cuda {
namespace {

struct Entry {
  const char* op;
  Fn fn;
  bool integers = false;
  const char* p = nullptr;  ///< the attribute, and its default
  float p_default = 0;
  const char* q = nullptr;
  float q_default = 0;
};

constexpr Entry kUnary[] = {
    {"Abs", Fn::Abs, true},
    {"Neg", Fn::Neg, true},
    {"Sign", Fn::Sign, true},
    {"Relu", Fn::Relu, true},
    {"Ceil", Fn::Ceil},
    {"Floor", Fn::Floor},
    {"Round", Fn::Round},
    {"Sqrt", Fn::Sqrt},
    {"Reciprocal", Fn::Reciprocal},
    {"Exp", Fn::Exp},
    {"Log", Fn::Log},
    {"Erf", Fn::Erf},
    {"Tanh", Fn::Tanh},
    {"Sin", Fn::Sin},
    {"Cos", Fn::Cos},
    {"Tan", Fn::Tan},
    {"Asin", Fn::Asin},
    {"Acos", Fn::Acos},
    {"Atan", Fn::Atan},
    {"Sinh", Fn::Sinh},
    {"Cosh", Fn::Cosh},
    {"Asinh", Fn::Asinh},
    {"Acosh", Fn::Acosh},
    {"Atanh", Fn::Atanh},
    {"LeakyRelu", Fn::LeakyRelu, false, "alpha", 0.01f},
    {"Elu", Fn::Elu, false, "alpha", 1},
    {"Selu", Fn::Selu, false, "alpha", 1.67326319217681884765625f, "gamma", 1.05070102214813232421875f},
    {"Celu", Fn::Celu, false, "alpha", 1},
    {"ThresholdedRelu", Fn::ThresholdedRelu, false, "alpha", 1},
    {"HardSigmoid", Fn::HardSigmoid, false, "alpha", 0.2f, "beta", 0.5f},
    {"HardSwish", Fn::HardSwish},
    {"Sigmoid", Fn::Sigmoid},
    {"Softplus", Fn::Softplus},
    {"Softsign", Fn::Softsign},
    {"Mish", Fn::Mish},
    {"Swish", Fn::Swish, false, "alpha", 1},
    {"Shrink", Fn::Shrink, true, "lambd", 0.5f, "bias", 0},
};

/// Bounds that are attributes, or constants.
std::optional<UnaryFunction> clip_function(const Node& node, int64_t opset, const std::function<const Tensor*(size_t)>& constant) {
  if (opset < 11) return UnaryFunction{Fn::Clip, node.f("min", std::numeric_limits<float>::lowest()), node.f("max", std::numeric_limits<float>::max())};
  const float infinity = std::numeric_limits<float>::infinity();
  UnaryFunction f{Fn::Clip, -infinity, infinity};
  for (size_t i : {1u, 2u}) {
    if (node.input(i) == kNone) continue;
    const Tensor* t = constant(i);
    if (!t || t->size() != 1 || (t->dtype() != DType::F32 && !is_16_bit_float(t->dtype()))) return std::nullopt;
    (i == 1 ? f.p : f.q) = to_scalar<float>(*t);
  }
  return f;
}

}  // namespace

std::optional<UnaryFunction> unary_function(const Node& node, int64_t opset, const std::function<const Tensor*(size_t)>& constant) {
  if (node.op == "Clip") return clip_function(node, opset, constant);
  if (node.op == "Gelu") {
    const std::string approximate = node.s("approximate", "none");
    if (approximate != "none" && approximate != "tanh") throw Error(ErrorKind::Unsupported, "Gelu's approximate is '" + approximate + "'; infopt knows none and tanh");
    return UnaryFunction{approximate == "none" ? Fn::Gelu : Fn::GeluTanh};
  }
  for (const Entry& e : kUnary)
    if (node.op == e.op) return UnaryFunction{e.fn, e.p ? node.f(e.p, e.p_default) : 0, e.q ? node.f(e.q, e.q_default) : 0, e.integers};
  return std::nullopt;
}

std::optional<Fn> binary_function(const Node& node) {
  struct Name {
    const char* op;
    Fn fn;
  };
  constexpr Name kBinary[] = {{"Add", Fn::Add}, {"Sub", Fn::Sub}, {"Mul", Fn::Mul}, {"Div", Fn::Div}, {"PRelu", Fn::PRelu}, {"Sum", Fn::Add}, {"Min", Fn::Min}, {"Max", Fn::Max}, {"Pow", Fn::Pow}};
  for (const Name& name : kBinary)
    if (node.op == name.op) return name.fn;
  if (node.op == "Mod") return node.i("fmod", 0) ? Fn::TruncMod : Fn::FloorMod;
  return std::nullopt;
}

void map_input(CudaContext& context, Compute compute, const std::vector<Step>& steps, DType to, StoreOptions options) {
  Layout layout;
  const Tensor& x = context.in_any(0, layout);
  const Operand flat{x.dtype(), x.raw(), {x.size()}};
  Tensor& y = context.out(0, to, x.shape(), layout);
  run_elements(context.stream(), compute, steps, {flat}, flat.shape, to, y.mutable_raw(), options);
}

void run_broadcast(CudaContext& context, size_t count, const std::vector<Step>& steps, bool gives_bool) {
  const Operands all = collect_operands(context.base(), count);
  const DType dtype = all.list[0].dtype;
  for (const Operand& o : all.list)
    if (o.dtype != dtype)
      throw Error(ErrorKind::Malformed, "the operands' types differ: " + std::string(name_of(dtype)) + " and " + std::string(name_of(o.dtype)));
  const DType to = gives_bool ? DType::Bool : dtype;
  Tensor& y = context.out(0, to, all.shape, all.layout);
  run_elements(context.stream(), compute_for(dtype), steps, all.list, all.physical, to, y.mutable_raw());
}

void refuse_strings(const KernelSpec& spec) {
  for (const auto* values : {&spec.node.inputs, &spec.node.outputs})
    for (ValueId v : *values) {
      if (v == kNone) continue;
      const DType t = spec.graph.value(v).type.dtype;
      if (t == DType::String || t == DType::C64 || t == DType::C128) throw Error(ErrorKind::Unsupported, "no CUDA kernel of " + std::string(name_of(t)));
    }
}

}  // namespace infopt::cuda
