#include "lib/runtime/fusions/value_facts.h"

#include <algorithm>

namespace infopt {
namespace {

constexpr int kDepth = 24;  // operators that are followed back

/// Operators whose output has the element type of each of the inputs listed.
struct Same {
  const char* op;
  size_t first, count;
};
constexpr Same kSameType[] = {
    {"MatMul", 0, 2}, {"Gemm", 0, 3}, {"Add", 0, 2}, {"Sub", 0, 2}, {"Mul", 0, 2}, {"Div", 0, 2}, {"Where", 1, 2}, {"Concat", 0, 1}, {"Conv", 0, 3},
    {"LayerNormalization", 0, 3}, {"RMSNormalization", 0, 2}, {"Softmax", 0, 1}, {"Transpose", 0, 1}, {"Reshape", 0, 1}, {"Slice", 0, 1}, {"Split", 0, 1}, {"Unsqueeze", 0, 1},
    {"Squeeze", 0, 1}, {"Identity", 0, 1}, {"Neg", 0, 1}, {"Relu", 0, 1}, {"Gelu", 0, 1}, {"Sigmoid", 0, 1}, {"Tanh", 0, 1}, {"Erf", 0, 1},
    {"Sqrt", 0, 1}, {"Gather", 0, 1}, {"Expand", 0, 1}, {"BatchNormalization", 0, 2}, {"ReduceMean", 0, 1}, {"Pow", 0, 1}, {"Clip", 0, 1}, {"Exp", 0, 1}};

bool has_type(PlanView& view, ValueId value, DType type, int depth) {
  if (value == kNone) return false;
  const DType declared = view.graph().value(value).type.dtype;
  if (declared != DType::Undefined) return declared == type;
  if (const Tensor* t = view.graph().constant(value)) return t->dtype() == type;
  const Node* node = view.producer(value);
  if (!node || depth == 0 || !node->domain.empty()) return false;
  if (node->is("Cast")) return node->i("to", 0) == static_cast<int64_t>(type);
  if (node->is("DequantizeLinear")) return node->find("output_dtype") == nullptr && has_type(view, node->input(1), type, depth - 1);
  for (const Same& same : kSameType) {
    if (node->op != same.op) continue;
    // Constants first: they need no way back.
    for (size_t i = same.first; i < same.first + same.count; ++i)
      if (const Tensor* t = node->input(i) == kNone ? nullptr : view.graph().constant(node->input(i))) return t->dtype() == type;
    for (size_t i = same.first; i < same.first + same.count; ++i)
      if (has_type(view, node->input(i), type, depth - 1)) return true;
    return false;
  }
  return is_elementwise(*node) && has_type(view, node->input(0), type, depth - 1);
}

int64_t rank_of(PlanView& view, ValueId value, int depth) {
  if (value == kNone) return -1;
  if (const Type& type = view.graph().value(value).type; type.has_shape) return static_cast<int64_t>(type.shape.size());
  if (const Tensor* t = view.graph().constant(value)) return t->rank();
  const Node* node = view.producer(value);
  if (node && node->is("Constant"))
    if (const Tensor* t = view.constant(value)) return t->rank();
  if (!node || depth == 0 || !node->domain.empty()) return -1;
  const auto back = [&](size_t i) { return rank_of(view, node->input(i), depth - 1); };
  if (node->is("Transpose") && node->find("perm")) return static_cast<int64_t>(node->ints("perm").size());
  if (node->is("Reshape") || node->is("Expand")) {
    const Tensor* shape = node->is("Reshape") ? view.constant(node->input(1)) : nullptr;
    return shape ? shape->size() : -1;
  }
  for (const char* op : {"Add", "Sub", "Mul", "Div", "Pow"})
    if (is_binary(node, op)) {
      const int64_t a = back(0), b = back(1);
      return a < 0 || b < 0 ? -1 : std::max(a, b);
    }
  if (node->is("MatMul")) {
    const int64_t a = back(0), b = back(1);
    return a < 2 || b < 2 ? -1 : std::max(a, b);
  }
  if (node->is("ReduceMean") && node->i("keepdims", 1) == 1) return back(0);
  for (const char* op : {"Softmax", "LayerNormalization", "Concat", "Slice", "Split", "Identity", "Cast", "Neg", "Relu", "Gelu", "Sigmoid", "Tanh", "Erf", "Sqrt", "QuantizeLinear", "DequantizeLinear"})
    if (node->is(op)) return back(0);
  return -1;
}

}  // namespace

bool has_type(PlanView& view, ValueId value, DType type) { return has_type(view, value, type, kDepth); }
bool is_float32(PlanView& view, ValueId value) { return has_type(view, value, DType::F32); }
int64_t rank_of(PlanView& view, ValueId value) { return rank_of(view, value, kDepth); }

std::optional<float> scalar_constant(PlanView& view, ValueId value) {
  const Tensor* t = view.constant(value);
  if (!t || t->size() != 1 || t->rank() > 2) return std::nullopt;
  const bool half = view.device() && (t->dtype() == DType::F16 || t->dtype() == DType::BF16);
  if (t->dtype() != DType::F32 && !half) return std::nullopt;
  return to_scalar<float>(*t);
}

}  // namespace infopt
