// Conversions between the layouts of a tensor: N, C, spatial… in row-major order, or channels last.
#pragma once
#include "lib/base/tensor.h"
#include "lib/ops/op.h"

namespace infopt {

/// A copy in the other layout; the logical shape stays. Rank 3 or more.
Tensor convert_layout(const Tensor& tensor, Layout from, Layout to);

}  // namespace infopt
