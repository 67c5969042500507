// One convolution of 8-bit tensors with constant weights, exact int32 sums, and what follows them.
#pragma once
#include <memory>

#include "lib/base/tensor.h"
#include "lib/runtime/cpu/conv_geometry.h"
#include "lib/runtime/cpu/int8_epilogue.h"

namespace infopt::cpu {

/// Shapes are ONNX's, (N, C, spatial…) with 1 to 3 spatial axes; src, residual and dst lie channels last: (N, spatial…, C).
/// Padding contributes the activations' zero point, so nothing to Σ (a − za)·(w − zw). Immutable: shared by threads.
class Int8Convolution {
 public:
  /// Weights (M, C/groups, k…), U8 or I8; `weight_zeros`: one for each of the M, null: 0. `src_dtype`, U8 or I8, is the activations'. Of the
  /// geometry, `transposed` must be false and `post` is ignored (the epilogue has it).
  /// Throws Error(Unsupported) for more than 3 spatial axes, Error(Malformed) for lists that don't fit.
  Int8Convolution(const ConvGeometry& geometry, const Tensor& weights, DType src_dtype, const int32_t* weight_zeros = nullptr);
  ~Int8Convolution();
  Int8Convolution(Int8Convolution&&) noexcept;

  /// Throws Error(Malformed) where the window doesn't fit.
  Shape output_shape(const Shape& src) const;
  /// The work in pieces of about equal size; each writes its own part of dst, and any cut of [0, tasks) among calls gives the same bits.
  /// Neighbouring tasks are cheaper in one call.
  int64_t tasks(const Shape& src) const;
  /// Tasks [begin, end). zero: the activations' zero point. residual: null, or of dst's shape and layout. dst must have been made with output_shape.
  void run(const Tensor& src, int32_t zero, const Int8Epilogue& epilogue, const Tensor* residual, Tensor& dst, int64_t begin, int64_t end) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace infopt::cpu
