// DequantizeLinear on both sides of a MatMul, none of them constant.
#pragma once
#include "lib/runtime/fusions/integer_tail.h"

namespace infopt {

/// Of the product that the tail ends; none where its operands aren't codes with one scale each.
std::optional<FusedStep> fuse_activation_product(PlanView& view, const IntegerTail& tail);

}  // namespace infopt
