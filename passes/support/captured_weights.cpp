#include "passes/support/captured_weights.h"

#include <optional>

namespace infopt {
namespace {

std::optional<int64_t> axis_in(const Node& node, ValueId outer);

/// The output channels' axis by the first product that reads the value.
std::optional<int64_t> axis_by(const Graph& body, const Use& use, ValueId value) {
  if (use.index == kGraphOutput) return std::nullopt;
  const Node& reader = body.node(use.node);
  if (use.index == kCapture) return axis_in(reader, value);
  if (use.index != 1) return std::nullopt;
  if (reader.is("MatMul")) return 1;
  if (reader.is("Gemm")) return reader.i("transB", 0) != 0 ? 0 : 1;
  return std::nullopt;
}

std::optional<int64_t> axis_in(const Node& node, ValueId outer) {
  for (const auto& body : node.bodies())
    for (size_t i = 0; i < body->value_capacity(); ++i) {
      const auto v = static_cast<ValueId>(i);
      if (!body->value_alive(v) || body->value(v).outer != outer) continue;
      for (const Use& use : body->value(v).uses)
        if (const auto axis = axis_by(*body, use, v)) return axis;
    }
  return std::nullopt;
}

}  // namespace

std::map<ValueId, int64_t> captured_weights(const Graph& graph, const Node& node) {
  std::map<ValueId, int64_t> found;
  for (ValueId c : node.captures) {
    const Tensor* t = graph.constant(c);
    if (!t || t->dtype() != DType::F32 || t->rank() != 2) continue;
    if (const auto axis = axis_in(node, c)) found.emplace(c, *axis);
  }
  return found;
}

}  // namespace infopt
