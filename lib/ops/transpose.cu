// Transpose, DepthToSpace, SpaceToDepth: boxes read in another order, in whichever layout the input lies.
#include "lib/base/strided.h"
#include "lib/ops/boxes.h"
#include "lib/runtime/cuda/moves.h"

namespace infopt::cuda {
namespace {

/// Channels-last where that is what the elements already are.
void put_box(CudaContext& c, const Tensor& x, const Box& box) {
  const bool last = box.shape.size() >= 3 && box.strides == strides_in(box.shape, Layout::ChannelsLast);
  const Layout layout = last ? Layout::ChannelsLast : Layout::Plain;
  c.set(0, read_box(c, x, box.shape, 0, box.strides, layout), layout);
}

std::unique_ptr<Kernel> transpose(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  const std::vector<int64_t> given = spec.node.ints("perm");
  const bool reverse = spec.node.find("perm") == nullptr;
  return make_cuda_kernel(
      [given, reverse](CudaContext& c) {
        Layout layout;
        const Tensor& x = c.in_any(0, layout);
        put_box(c, x, transpose_box(x.shape(), strides_in(x.shape(), layout), resolve_perm(x.shape(), given, reverse)));
      },
      "through tiles of shared memory");
}

/// The strides of axes that are split into those of `parts` (of length 1 too, which stand anywhere).
Shape split_strides(const Shape& strides, const Shape& shape, const Shape& parts) {
  Shape out(parts.size());
  size_t d = shape.size();
  int64_t inside = 1, whole = 1;  // how far into the axis d the parts have come
  for (size_t p = parts.size(); p-- > 0;) {
    while (inside >= whole && parts[p] != 1 && d > 0) whole = shape[--d], inside = 1;
    out[p] = d < shape.size() ? strides[d] * inside : 0;
    inside *= parts[p];
  }
  return out;
}

template <BlockMove (*plan)(const Shape&, int64_t, bool)> std::unique_ptr<Kernel> move_blocks(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  const int64_t b = block_size(spec.node);
  const bool crd = spec.node.s("mode", "DCR") == "CRD";
  return make_cuda_kernel(
      [b, crd](CudaContext& c) {
        Layout layout;
        const Tensor& x = c.in_any(0, layout);
        const BlockMove move = plan(x.shape(), b, crd);
        const Box box = transpose_box(move.blocks, split_strides(strides_in(x.shape(), layout), x.shape(), move.blocks), move.perm);
        Tensor& y = c.out(0, x.dtype(), move.result, layout);
        copy_box(c.stream(), element_bytes(x.dtype()), box.shape, y.mutable_raw(), split_strides(strides_in(move.result, layout), move.result, box.shape), x.raw(), box.strides);
      },
      "blocks, one element a thread");
}

}  // namespace

std::vector<CudaOp> cuda_transpose() {
  return {{.name = "Transpose", .make = &transpose},
          {.name = "DepthToSpace", .make = &move_blocks<depth_to_space_move>},
          {.name = "SpaceToDepth", .make = &move_blocks<space_to_depth_move>}};
}

}  // namespace infopt::cuda
