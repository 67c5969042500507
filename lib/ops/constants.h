// What Constant and Range make, for every device's kernels.
#pragma once
#include "lib/base/tensor.h"
#include "lib/ir/graph.h"

namespace infopt {

/// The value in a Constant node's attributes. Throws Error(Malformed) where there is none, Unsupported where it is sparse.
Tensor constant_of(const Node& node);
/// How many elements Range gives. Throws Error(Malformed) where it doesn't end.
int64_t range_length(const Tensor& start, const Tensor& limit, const Tensor& delta);

}  // namespace infopt
