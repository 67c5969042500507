// Which elements Slice, Expand, Tile and Transpose read: boxes with strides, for every device's kernels.
#pragma once
#include <vector>

#include "lib/base/tensor.h"
#include "lib/ir/graph.h"

namespace infopt {

/// Elements of a tensor with the given strides of its axes: those from `offset` on.
struct Box {
  Shape shape;
  int64_t offset = 0;
  Shape strides;
  bool whole = false;  ///< every element, where it was
};

struct SliceBounds {
  std::vector<int64_t> starts, ends, axes, steps;  ///< no axes: the first ones; no steps: 1
};
/// NumPy's slice: what is out of range is clamped. Throws Error(Malformed) where the lists don't fit.
Box slice_box(const Shape& shape, const Shape& strides, SliceBounds bounds);
/// Throws Error(Malformed) where the shapes don't broadcast.
Box expand_box(const Shape& shape, const Shape& strides, const std::vector<int64_t>& to);
/// Two axes for each of the tensor's: the repeats and the axis itself. `result`: the shape that comes of it.
Box tile_box(const Shape& shape, const Shape& strides, const std::vector<int64_t>& repeats, Shape& result);
/// perm: distinct axes. `whole`: the order of all axes longer than 1 stays.
Box transpose_box(const Shape& shape, const Shape& strides, const std::vector<int64_t>& perm);
/// The attribute, or the axes in reverse where there is none; normalized. Throws Error(Malformed) where it doesn't fit the shape.
std::vector<int64_t> resolve_perm(const Shape& shape, const std::vector<int64_t>& given, bool reverse);


/// DepthToSpace and SpaceToDepth: the tensor as blocks, their axes in another order, and what the result's shape is then.
struct BlockMove {
  Shape blocks;
  std::vector<int64_t> perm;
  Shape result;
};
BlockMove depth_to_space_move(const Shape& x, int64_t block, bool crd);
BlockMove space_to_depth_move(const Shape& x, int64_t block, bool crd);
/// The attribute. Throws Error(Malformed) where it isn't positive.
int64_t block_size(const Node& node);

}  // namespace infopt
