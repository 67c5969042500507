// The gradient of a depthwise convolution by its weights: oneDNN 2.6 takes ten times a data gradient's time for kernels of 5 × 5.
#pragma once
#include "lib/base/tensor.h"
#include "lib/runtime/cpu/conv_geometry.h"

namespace infopt::cpu {

/// Whether each channel of x, (N, C, H, W), has one kernel of its own.
bool is_depthwise(const ConvGeometry& geometry, const Shape& x, const Shape& weights);
/// x and dy lie channels last; dw is (C, 1, kh, kw). On one thread, in one order.
void depthwise_by_weights(const ConvGeometry& geometry, const Tensor& x, const Tensor& dy, Tensor& dw);

}  // namespace infopt::cpu
