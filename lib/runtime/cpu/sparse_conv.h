// Convolutions as products of gathered rows with weights that are mostly zero (sparse_product.h).
#pragma once
#include "lib/base/tensor.h"
#include "lib/runtime/cpu/sparse_product.h"
#include "lib/runtime/window.h"

namespace infopt::cpu {

/// Weights [m, c, spatial…] as [m, taps·c]: what a window sees, pixel after pixel.
Tensor by_taps(const Tensor& weights);
/// And back to the shape that they had.
Tensor from_taps(const Tensor& weights, const Shape& shape);

/// y = post(conv(x) + bias), or added to y; x and y lie channels last, with one or two spatial axes. The product's weights are by_taps(). Only
/// where it wins for so many pixels of y.
void sparse_convolve(const SparseProduct& product, const Window& window, const Tensor& x, const float* bias, const PostActivation& post, bool adds, Tensor& y);

}  // namespace infopt::cpu
