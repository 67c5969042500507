// Where a convolution's window goes; shared by the float and the integer kernels.
#pragma once
#include <cstdint>
#include <vector>

#include "lib/ops/op.h"

namespace infopt::cpu {

/// A convolution (or its transpose) of tensors in any rank from 3 to 5.
struct ConvGeometry {
  std::vector<int64_t> strides, dilations, pads_begin, pads_end;  ///< one for each spatial axis; dilation 1 is dense
  int64_t groups = 1;
  bool transposed = false;
  PostActivation post;
};

/// A convolution down a single column, as sequences come in images' shape, is one along a row: the same memory channels last, and kernels go along rows.
bool is_column(const Shape& src, const Shape& weights, const Shape& dst, const ConvGeometry& geometry);

}  // namespace infopt::cpu
