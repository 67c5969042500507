// Tensors put together and taken apart along an axis, for other operators than Concat and Split.
#pragma once
#include <vector>

#include "lib/base/tensor.h"
#include "lib/ops/op.h"

namespace infopt {

/// The parts, of one element type, in a row along the axis. Throws Error(Malformed) where there are none or shapes don't fit.
Tensor concat_tensors(const std::vector<Tensor>& parts, int64_t axis);
/// A copy of the entries [begin, begin + count) of an axis, which they lie within.
Tensor part_of(const Tensor& x, int64_t axis, int64_t begin, int64_t count);


/// The dimensions as they lie in memory, outermost first, and the place of a logical axis among them.
Shape memory_shape(const Shape& shape, Layout layout);
int64_t memory_axis(int64_t axis, int64_t rank, Layout layout);
/// The shape of the whole, in logical axes. Throws Error(Malformed) where the parts don't fit.
Shape concat_shape(const std::vector<Tensor>& parts, size_t axis);
/// The sizes that Split gives an axis of n, by its list (or none, then by the number of outputs).
std::vector<int64_t> split_sizes(int64_t n, std::vector<int64_t> given, int64_t parts, bool even_only);

}  // namespace infopt
