#include "lib/runtime/fusions/code_end.h"

#include "lib/ops/quantize_linear.h"

namespace infopt {

std::optional<CodeEnd> code_end(PlanView& view, const Node& node) {
  if (!node.is("QuantizeLinear") || node.input(0) == kNone || node.i("block_size", 0) != 0) return std::nullopt;
  const auto is_known = [](DType t) { return t == DType::F32 || t == DType::F16 || t == DType::BF16; };
  const Tensor *scale = view.constant(node.input(1)), *zero = view.constant(node.input(2));
  if (!scale || scale->size() != 1 || scale->rank() > 1 || !is_known(scale->dtype()) || (node.input(2) != kNone && (!zero || zero->size() != 1))) return std::nullopt;
  const auto wanted = [&](const char* name) {
    const int64_t number = node.i(name, 0);
    return number >= 0 && number < kDTypeCount ? static_cast<DType>(number) : DType::String;
  };
  CodeEnd end;
  if (zero) end.type = zero->dtype();
  else if (node.find("output_dtype")) end.type = wanted("output_dtype");
  const bool small_float = end.type == DType::F8E4M3FN || end.type == DType::F8E5M2;
  if (end.type != DType::U8 && end.type != DType::I8 && !(small_float && node.i("saturate", 1) != 0)) return std::nullopt;
  end.precision = wanted("precision") == DType::Undefined ? scale->dtype() : wanted("precision");
  if (!is_known(end.precision)) return std::nullopt;
  end.scale = to_scalar<float>(*scale);
  if (zero) end.zero = to_scalar<float>(*zero);
  return end;
}

bool makes_input(PlanView& view, const Node& node, bool& kept) {
  kept = false;
  if (!view.hidden(node.input(0)) || view.constant(node.input(0))) return false;
  for (const Use& use : view.graph().value(node.input(0)).uses) {
    if (use.node == node.id) continue;
    if (view.position(use.node) < view.position(node.id)) return false;
    kept = true;
  }
  return !kept || view.hidden(node.outputs[0]);
}

}  // namespace infopt
