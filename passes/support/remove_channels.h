// Takes channels out of a graph: weights are sliced, and the numbers in nodes that speak of sizes are put right.
#pragma once
#include <vector>

#include "lib/ir/edit.h"
#include "passes/support/dimensions.h"

namespace infopt {

/// `gone` by class (Dimensions::find of an atom); `dimensions` are of the edited graph as it is. Ids of nodes and of the values that they make stay; what
/// nodes make loses its declared shape, for inference to find again. What reads the size of a dimension that shrinks gets the old one, except for
/// shapes of tensors that shrink themselves.
void remove_channels(GraphEdit& edit, const Dimensions& dimensions, const std::vector<bool>& gone);

/// The tensor without the positions of an axis that aren't kept. Any type but strings; types of less than a byte are repacked.
Tensor keep_positions(const Tensor& t, int64_t axis, const std::vector<bool>& keep);

}  // namespace infopt
