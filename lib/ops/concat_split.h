// Tensors put together and taken apart along an axis, for other operators than Concat and Split.
#pragma once
#include <vector>

#include "lib/base/tensor.h"

namespace infopt {

/// The parts, of one element type, in a row along the axis. Throws Error(Malformed) where there are none or shapes don't fit.
Tensor concat_tensors(const std::vector<Tensor>& parts, int64_t axis);
/// A copy of the entries [begin, begin + count) of an axis, which they lie within.
Tensor part_of(const Tensor& x, int64_t axis, int64_t begin, int64_t count);

}  // namespace infopt
