// Takes channels out of a graph or puts more of them in: weights are sliced or repeated, and the numbers in nodes that speak of sizes are put right.
#pragma once
#include <vector>

#include "lib/ir/edit.h"
#include "passes/support/dimensions.h"

namespace infopt {

/// `gone` by class (Dimensions::find of an atom); `dimensions` are of the edited graph as it is. Ids of nodes and of the values that they make stay; what
/// nodes make loses its declared shape, for inference to find again. What reads the size of a dimension that shrinks gets the old one, except for
/// shapes of tensors that shrink themselves.
void remove_channels(GraphEdit& edit, const Dimensions& dimensions, const std::vector<bool>& gone);

/// The same with `copies` of each class, side by side: 0 goes, 1 stays, of more every one has the class's values, and the float weights that sum over them
/// are divided by their number. Exact where the class is neither a head's nor a width's.
void repeat_channels(GraphEdit& edit, const Dimensions& dimensions, const std::vector<int>& copies);

/// Where the positions of an axis are taken from, when classes are there so often: neighbours of one class as one.
std::vector<int64_t> repeated_positions(const Positions& atoms, const Dimensions& dimensions, const std::vector<int>& copies);

/// The tensor's positions of an axis in that order. Any type but strings; types of less than a byte are repacked.
Tensor take_positions(const Tensor& t, int64_t axis, const std::vector<int64_t>& from);

}  // namespace infopt
