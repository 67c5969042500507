// Gradients of convolutions as products with what their windows see: for those that oneDNN has nothing but its reference code for, such as kernels much
// wider than they are high, or windows that lie in the pads altogether.
#pragma once
#include "lib/base/tensor.h"
#include "lib/runtime/cpu/conv_geometry.h"

namespace infopt::cpu {

/// x, dx and dy lie channels last, weights as ONNX has them, (M, C/groups, k…), in any rank from 3. A few thousand windows are laid out at a time.
void unrolled_by_input(const ConvGeometry& geometry, const Tensor& dy, const Tensor& weights, Tensor& dx);
void unrolled_by_weights(const ConvGeometry& geometry, const Tensor& x, const Tensor& dy, Tensor& dw);

}  // namespace infopt::cpu
