#include "passes/support/transposes.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <string_view>

#include "passes/support/patterns.h"

namespace infopt {
namespace {

constexpr std::array<std::string_view, 36> kUnary{
    "Abs", "Acos", "Asin", "Atan", "BitwiseNot", "Cast", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus",
    "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu"};
constexpr std::array<std::string_view, 22> kBroadcasting{"Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
                                                         "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Where", "Xor"};

bool among(const auto& list, const std::string& op) { return std::find(list.begin(), list.end(), op) != list.end(); }

}  // namespace

std::optional<std::vector<int64_t>> permutation_of(const Graph& graph, const Node& node) {
  if (!node.is("Transpose") || node.input(0) == kNone || output_of(node) == kNone) return std::nullopt;
  std::vector<int64_t> perm = node.ints("perm");
  if (!perm.empty()) {
    std::vector<int64_t> sorted = perm;
    std::sort(sorted.begin(), sorted.end());
    return is_identity(sorted) ? std::optional(perm) : std::nullopt;
  }
  const int64_t rank = rank_of(graph, node.input(0));
  if (rank < 0) return std::nullopt;
  for (int64_t a = rank; a-- > 0;) perm.push_back(a);
  return perm;
}

std::vector<int64_t> inverse(const std::vector<int64_t>& perm) {
  std::vector<int64_t> out(perm.size());
  for (size_t i = 0; i < perm.size(); ++i) out[static_cast<size_t>(perm[i])] = static_cast<int64_t>(i);
  return out;
}

bool is_identity(const std::vector<int64_t>& perm) {
  for (size_t i = 0; i < perm.size(); ++i)
    if (perm[i] != static_cast<int64_t>(i)) return false;
  return true;
}

bool moves_freely(const Graph& graph, const Node& node, int64_t rank) {
  if (!node.domain.empty() || node.outputs.size() != 1 || node.outputs[0] == kNone || node.inputs.empty()) return false;
  const bool scale = node.op == "QuantizeLinear" || node.op == "DequantizeLinear";
  if (among(kUnary, node.op) || scale) {
    for (size_t i = 1; i < node.inputs.size(); ++i) {
      if (node.inputs[i] == kNone) continue;
      const Tensor* c = graph.constant(node.inputs[i]);
      if (!c || c->size() != 1) return false;
    }
    return !graph.constant(node.inputs[0]);
  }
  if (node.op == "Softmax" || node.op == "LogSoftmax") return graph.opset() >= 13;
  const bool concat = node.op == "Concat";
  if (!concat && !among(kBroadcasting, node.op)) return false;
  if (node.find("broadcast")) return false;  // opset 6
  for (ValueId v : node.inputs) {
    if (v == kNone) return false;
    const Tensor* c = graph.constant(v);
    if (c && ((concat ? c->rank() != rank : c->rank() > rank) || bits_of(c->dtype()) < 8)) return false;
    if (!c && rank_of(graph, v) >= 0 && rank_of(graph, v) != rank) return false;
  }
  return true;
}

void move_axis(GraphEdit& edit, NodeId id, const std::vector<int64_t>& perm) {
  const Node& n = edit.graph().node(id);
  if (!n.is("Concat") && !n.is("Softmax") && !n.is("LogSoftmax")) return;
  const int64_t axis = n.i("axis", -1);
  edit.set_attribute(id, "axis", perm[static_cast<size_t>(axis < 0 ? axis + static_cast<int64_t>(perm.size()) : axis)]);
}

Type permuted(const Type& type, const std::vector<int64_t>& perm) {
  Type out = type;
  if (!type.has_shape || type.shape.size() != perm.size()) {
    out.has_shape = false;
    out.shape.clear();
    return out;
  }
  for (size_t i = 0; i < perm.size(); ++i) out.shape[i] = type.shape[static_cast<size_t>(perm[i])];
  return out;
}

Tensor permuted(const Tensor& constant, const std::vector<int64_t>& perm) {
  Shape from(perm.size() - constant.shape().size(), 1);
  from.insert(from.end(), constant.shape().begin(), constant.shape().end());
  Shape to, stride(perm.size(), 1);
  for (size_t i = perm.size(); i-- > 1;) stride[i - 1] = stride[i] * from[i];
  for (int64_t axis : perm) to.push_back(from[static_cast<size_t>(axis)]);
  Tensor out(constant.dtype(), to);
  const size_t each = bits_of(constant.dtype()) / 8;
  std::vector<int64_t> at(perm.size(), 0);
  for (int64_t i = 0; i < out.size(); ++i) {
    int64_t source = 0;
    for (size_t a = 0; a < perm.size(); ++a) source += at[a] * stride[static_cast<size_t>(perm[a])];
    std::memcpy(out.mutable_raw() + static_cast<size_t>(i) * each, constant.raw() + static_cast<size_t>(source) * each, each);
    for (size_t a = perm.size(); a-- > 0 && ++at[a] == to[a];) at[a] = 0;
  }
  return out;
}

}  // namespace infopt
