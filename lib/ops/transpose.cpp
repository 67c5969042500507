// Transpose, DepthToSpace, SpaceToDepth, ReverseSequence.
#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

Tensor transposed(const Tensor& x, const std::vector<int64_t>& perm) {
  const Shape strides = row_major_strides(x.shape());
  Shape shape, from;
  for (int64_t p : perm) {
    shape.push_back(x.shape()[at(p)]);
    from.push_back(strides[at(p)]);
  }
  return move_elements({x}, [&](const std::vector<Tensor>& in) { return gather_strided(in[0], shape, 0, from); });
}

/// Whether the permutation leaves the order of all axes longer than 1 alone, so that no element moves.
bool moves_nothing(const Shape& shape, const std::vector<int64_t>& perm) {
  int64_t last = -1;
  for (int64_t p : perm) {
    if (shape[at(p)] == 1) continue;
    if (p < last) return false;
    last = p;
  }
  return true;
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
    std::vector<int64_t> perm = given;
    if (reverse)
      for (int64_t i = x.rank(); i-- > 0;) perm.push_back(i);
    if (static_cast<int64_t>(perm.size()) != x.rank())
      malformed("perm has " + std::to_string(perm.size()) + " axes, the tensor's shape is " + to_string(x.shape()));
    perm = normal_axes(perm, x.rank());
    Shape shape;
    for (int64_t p : perm) shape.push_back(x.shape()[at(p)]);
    if (layout == Layout::ChannelsLast && channels_to_end(perm)) return c.set(0, x.reshaped(shape));
    const Tensor& plain = c.in(0);
    c.set(0, moves_nothing(plain.shape(), perm) ? plain.reshaped(shape) : transposed(plain, perm));
  });
}

int64_t block_size(const KernelSpec& spec) {
  const int64_t b = spec.node.i("blocksize", 0);
  if (b < 1) malformed("blocksize " + std::to_string(b) + " isn't positive");
  return b;
}

const Tensor& rank4(KernelContext& c) {
  const Tensor& x = c.in(0);
  if (x.rank() != 4) malformed("the input should have 4 dimensions, not the shape " + to_string(x.shape()));
  return x;
}

std::unique_ptr<Kernel> depth_to_space(const KernelSpec& spec) {
  const int64_t b = block_size(spec);
  const bool crd = spec.node.s("mode", "DCR") == "CRD";
  return make_kernel([b, crd](KernelContext& c) {
    const Tensor& x = rank4(c);
    const int64_t n = x.dim(0), ch = x.dim(1), h = x.dim(2), w = x.dim(3);
    if (b > ch || ch % (b * b)) malformed("DepthToSpace of " + std::to_string(ch) + " channels by blocks of " + std::to_string(b));
    const int64_t d = ch / (b * b);
    const Tensor y = crd ? transposed(x.reshaped({n, d, b, b, h, w}), {0, 1, 4, 2, 5, 3})
                         : transposed(x.reshaped({n, b, b, d, h, w}), {0, 3, 4, 1, 5, 2});
    c.set(0, y.reshaped({n, d, h * b, w * b}));
  });
}

std::unique_ptr<Kernel> space_to_depth(const KernelSpec& spec) {
  const int64_t b = block_size(spec);
  const bool crd = spec.node.s("mode", "DCR") == "CRD";
  return make_kernel([b, crd](KernelContext& c) {
    const Tensor& x = rank4(c);
    const int64_t n = x.dim(0), ch = x.dim(1), h = x.dim(2), w = x.dim(3);
    if (h % b || w % b) malformed("SpaceToDepth of " + to_string(x.shape()) + " by blocks of " + std::to_string(b));
    const Tensor blocks = x.reshaped({n, ch, h / b, b, w / b, b});
    c.set(0, transposed(blocks, crd ? std::vector<int64_t>{0, 1, 3, 5, 2, 4} : std::vector<int64_t>{0, 3, 5, 1, 2, 4})
                 .reshaped({n, ch * b * b, h / b, w / b}));
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

std::vector<OpDef> op_transpose() {
  return {{.name = "Transpose", .cpu = &transpose},
          {.name = "DepthToSpace", .cpu = &depth_to_space},
          {.name = "SpaceToDepth", .cpu = &space_to_depth},
          {.name = "ReverseSequence", .cpu = &reverse_sequence}};
}

}  // namespace infopt
