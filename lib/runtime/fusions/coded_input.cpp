#include "lib/runtime/fusions/coded_input.h"

#include <algorithm>
#include <iterator>

#include "lib/base/error.h"
#include "lib/runtime/fusions/value_facts.h"

namespace infopt {
namespace {

/// The element type as far as it is declared, by the value or by the one that QuantizeLinear and operators that only move make it from.
DType type_of(PlanView& view, ValueId value) {
  static constexpr const char* kMovers[] = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Concat", "Identity", "Expand", "Gather"};
  for (int depth = 0; depth < 16 && value != kNone; ++depth) {
    if (const Tensor* known = view.constant(value)) return known->dtype();
    if (const DType declared = view.graph().value(value).type.dtype; declared != DType::Undefined) return declared;
    const Node* node = view.producer(value);
    if (!node || !node->domain.empty()) break;
    if (node->is("QuantizeLinear")) value = node->input(2);
    else if (std::any_of(std::begin(kMovers), std::end(kMovers), [&](const char* op) { return node->op == op; })) value = node->input(0);
    else break;
  }
  return DType::Undefined;
}

}  // namespace

std::optional<CodedValue> coded_value(PlanView& view, ValueId value) {
  const Node* node = view.producer(value);
  if (!node || !node->is("DequantizeLinear") || node->input(0) == kNone || node->input(1) == kNone || node->i("block_size", 0) != 0 || view.constant(value)) return std::nullopt;
  if (!has_type(view, value, DType::F32) && !has_type(view, value, DType::F16) && !has_type(view, value, DType::BF16)) return std::nullopt;
  DType type = type_of(view, node->input(2));
  if (type == DType::Undefined) type = type_of(view, node->input(0));
  if (type != DType::U8 && type != DType::I8 && type != DType::F8E4M3FN && type != DType::F8E5M2) return std::nullopt;
  try {
    return CodedValue{node, {QuantizeOptions::of(*node), node->input(2) != kNone}};
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace infopt
