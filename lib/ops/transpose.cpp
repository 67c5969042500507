// Transpose, DepthToSpace, SpaceToDepth, ReverseSequence.
#include "lib/base/strided.h"
#include "lib/ops/boxes.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

Tensor transposed(const Tensor& x, const std::vector<int64_t>& perm) {
  const Box box = transpose_box(x.shape(), row_major_strides(x.shape()), perm);
  if (box.whole) return x.reshaped(box.shape);
  return move_elements({x}, [&](const std::vector<Tensor>& in) { return gather_strided(in[0], box.shape, 0, box.strides); });
}

/// Channels to the end: (0, 2, …, r-1, 1).
bool channels_to_end(const std::vector<int64_t>& perm) {
  const auto rank = static_cast<int64_t>(perm.size());
  if (rank < 3 || perm[0] != 0 || perm.back() != 1) return false;
  for (int64_t i = 1; i + 1 < rank; ++i)
    if (perm[at(i)] != i + 1) return false;
  return true;
}

std::unique_ptr<Kernel> transpose(const KernelSpec& spec) {
  const std::vector<int64_t> given = spec.node.ints("perm");
  const bool reverse = spec.node.find("perm") == nullptr;
  return make_kernel([given, reverse](KernelContext& c) {
    Layout layout;
    const Tensor& x = c.in_any(0, layout);
    const std::vector<int64_t> perm = resolve_perm(x.shape(), given, reverse);
    if (layout == Layout::ChannelsLast && channels_to_end(perm)) return c.set(0, x.reshaped(transpose_box(x.shape(), x.shape(), perm).shape));
    c.set(0, transposed(c.in(0), perm));
  });
}

template <BlockMove (*plan)(const Shape&, int64_t, bool)> std::unique_ptr<Kernel> block_kernel(const KernelSpec& spec) {
  const int64_t b = block_size(spec.node);
  const bool crd = spec.node.s("mode", "DCR") == "CRD";
  return make_kernel([b, crd](KernelContext& c) {
    const BlockMove move = plan(c.in(0).shape(), b, crd);
    c.set(0, transposed(c.in(0).reshaped(move.blocks), move.perm).reshaped(move.result));
  });
}

/// Reverses the first lengths[b] steps of every batch entry b.
Tensor reversed(const Tensor& x, const std::vector<int64_t>& lengths, size_t batch_axis, size_t time_axis) {
  const Shape strides = row_major_strides(x.shape());
  Shape box = x.shape();
  box[batch_axis] = 1;
  Tensor y(x.dtype(), x.shape());
  const size_t size = element_bytes(x.dtype());
  const auto copy = [&](int64_t b, int64_t from_step, int64_t to_step, int64_t steps, int64_t direction) {
    box[time_axis] = steps;
    Shape from = strides;
    from[time_axis] *= direction;
    const int64_t base = b * strides[batch_axis];
    copy_strided(size, box, y.mutable_raw() + size * at(base + to_step * strides[time_axis]), strides,
                 x.raw() + size * at(base + from_step * strides[time_axis]), from);
  };
  for (int64_t b = 0; b < x.shape()[batch_axis]; ++b) {
    const int64_t length = lengths[at(b)], all = x.shape()[time_axis];
    if (length < 0 || length > all)
      malformed("a sequence length of " + std::to_string(length) + " in a tensor of shape " + to_string(x.shape()));
    if (length > 0) copy(b, length - 1, 0, length, -1);
    if (length < all) copy(b, length, length, all - length, 1);
  }
  return y;
}

std::unique_ptr<Kernel> reverse_sequence(const KernelSpec& spec) {
  const int64_t batch = spec.node.i("batch_axis", 1), time = spec.node.i("time_axis", 0);
  return make_kernel([batch, time](KernelContext& c) {
    const Tensor& x = c.in(0);
    const int64_t b = normal_axis(batch, x.rank()), t = normal_axis(time, x.rank());
    if (b == t) malformed("batch_axis and time_axis are the same");
    const std::vector<int64_t> lengths = integers(c.in(1));
    if (static_cast<int64_t>(lengths.size()) != x.dim(b)) malformed("as many sequence lengths are needed as the batch has entries");
    c.set(0, move_elements({x}, [&](const std::vector<Tensor>& in) { return reversed(in[0], lengths, at(b), at(t)); }));
  });
}

}  // namespace

std::vector<int64_t> resolve_perm(const Shape& shape, const std::vector<int64_t>& given, bool reverse) {
  std::vector<int64_t> perm = given;
  const auto rank = static_cast<int64_t>(shape.size());
  if (reverse)
    for (int64_t i = rank; i-- > 0;) perm.push_back(i);
  if (perm.size() != shape.size()) malformed("perm has " + std::to_string(perm.size()) + " axes, the tensor's shape is " + to_string(shape));
  return normal_axes(perm, rank);
}

Box transpose_box(const Shape& shape, const Shape& strides, const std::vector<int64_t>& perm) {
  Box box{{}, 0, {}, true};
  int64_t last = -1;
  for (const int64_t p : perm) {
    box.shape.push_back(shape[at(p)]);
    box.strides.push_back(strides[at(p)]);
    if (shape[at(p)] == 1) continue;
    box.whole = box.whole && p > last;
    last = p;
  }
  return box;
}

int64_t block_size(const Node& node) {
  const int64_t b = node.i("blocksize", 0);
  if (b < 1) malformed("blocksize " + std::to_string(b) + " isn't positive");
  return b;
}

BlockMove depth_to_space_move(const Shape& x, int64_t b, bool crd) {
  if (x.size() != 4) malformed("the input should have 4 dimensions, not the shape " + to_string(x));
  const int64_t n = x[0], c = x[1], h = x[2], w = x[3];
  if (b > c || c % (b * b)) malformed("DepthToSpace of " + std::to_string(c) + " channels by blocks of " + std::to_string(b));
  const int64_t d = c / (b * b);
  const Shape result{n, d, h * b, w * b};
  if (crd) return {{n, d, b, b, h, w}, {0, 1, 4, 2, 5, 3}, result};
  return {{n, b, b, d, h, w}, {0, 3, 4, 1, 5, 2}, result};
}

BlockMove space_to_depth_move(const Shape& x, int64_t b, bool crd) {
  if (x.size() != 4) malformed("the input should have 4 dimensions, not the shape " + to_string(x));
  const int64_t n = x[0], c = x[1], h = x[2], w = x[3];
  if (h % b || w % b) malformed("SpaceToDepth of " + to_string(x) + " by blocks of " + std::to_string(b));
  BlockMove move{{n, c, h / b, b, w / b, b}, {0, 3, 5, 1, 2, 4}, {n, c * b * b, h / b, w / b}};
  if (crd) move.perm = {0, 1, 3, 5, 2, 4};
  return move;
}

std::vector<OpDef> op_transpose() {
  return {{.name = "Transpose", .cpu = &transpose},
          {.name = "DepthToSpace", .cpu = block_kernel<depth_to_space_move>},
          {.name = "SpaceToDepth", .cpu = block_kernel<space_to_depth_move>},
          {.name = "ReverseSequence", .cpu = &reverse_sequence}};
}

}  // namespace infopt
