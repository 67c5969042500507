// Sums and products of two tensors of codes, with NumPy's broadcasting.
#pragma once
#include "lib/base/tensor.h"
#include "lib/ops/op.h"
#include "lib/runtime/cpu/int8_elementwise.h"

namespace infopt {

struct CodeOperand {
  Tensor tensor;
  Layout layout = Layout::Plain;
};

/// The shape and layout that the result will have: channels last where one of the operands of that shape lies so.
struct CodePlan {
  Shape shape;
  Layout layout = Layout::Plain;
};
CodePlan plan_codes(const CodeOperand& a, const CodeOperand& b);
/// Writes y, made by the caller as the plan says.
void combine_codes(const cpu::Int8Binary& how, bool product, const CodePlan& plan, CodeOperand a, CodeOperand b, Tensor& y);

}  // namespace infopt
