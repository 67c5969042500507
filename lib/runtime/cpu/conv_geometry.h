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

}  // namespace infopt::cpu
