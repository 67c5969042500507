// Transpose, DepthToSpace, SpaceToDepth: boxes read in another order, in whichever layout the input lies. ReverseSequence.
#include "lib/base/strided.h"
#include "lib/ops/boxes.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/gather.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/launch.h"
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

constexpr int kThreads = 256;

/// Rows of [outer, a, between, b, inner], of which a is the time and b the batch, or the other way.
struct SequenceRows {
  Divider<uint64_t> inner, b, between, a;
  bool time_first;
};

/// Rows before an entry's length come in reverse. A length out of range is a complaint, and reverses nothing.
template <class T, class K> __global__ void reverse_rows(const T* x, const K* lengths, T* y, const SequenceRows rows, int64_t count, Complaint* complaint) {
  const int64_t most = static_cast<int64_t>(rows.time_first ? rows.a.d : rows.b.d);
  const int64_t row = static_cast<int64_t>(rows.inner.d) * (rows.time_first ? static_cast<int64_t>(rows.between.d * rows.b.d) : 1);
  for (int64_t e = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<int64_t>(gridDim.x) * kThreads) {
    uint64_t column = static_cast<uint64_t>(e), b = divide_off(column, rows.inner), between = divide_off(b, rows.b), a = divide_off(between, rows.between);
    divide_off(a, rows.a);
    const int64_t time = static_cast<int64_t>(rows.time_first ? a : b);
    int64_t length = static_cast<int64_t>(lengths[rows.time_first ? b : a]);
    if (length < 0 || length > most) *complaint = Complaint::Index, length = 0;
    y[e] = x[time < length ? e + (length - 1 - 2 * time) * row : e];
  }
}

void run_reverse(CudaContext& c, int64_t batch_axis, int64_t time_axis) {
  const Tensor &x = c.in(0), &lengths = c.in(1);
  const int64_t batch = normal_axis(batch_axis, x.rank()), time = normal_axis(time_axis, x.rank());
  if (batch == time) malformed("batch_axis and time_axis are the same");
  if (lengths.size() != x.dim(batch)) malformed("as many sequence lengths are needed as the batch has entries");
  Tensor& y = c.out(0, x.dtype(), x.shape());
  if (y.size() == 0) return;
  const int64_t a = std::min(batch, time), b = std::max(batch, time);
  with_runs(x, y, product(x.shape(), at(b) + 1, x.shape().size()), [&](auto zero, int64_t inner, int64_t count) {
    using T = decltype(zero);
    const SequenceRows rows{Divider<uint64_t>(inner), Divider<uint64_t>(x.dim(b)), Divider<uint64_t>(product(x.shape(), at(a) + 1, at(b))), Divider<uint64_t>(x.dim(a)), time == a};
    with_indices(lengths, [&](auto* given) {
      using K = std::remove_cvref_t<decltype(*given)>;
      INFOPT_LAUNCH(c.stream(), (reverse_rows<T, K>), {grid_for(count, kThreads)}, {kThreads}, 0, reinterpret_cast<const T*>(x.raw()), given, reinterpret_cast<T*>(y.mutable_raw()), rows, count,
                    c.run().complaint());
    });
  });
}

std::unique_ptr<Kernel> reverse_sequence(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  need_type(spec, 1, {DType::I32, DType::I64});
  return make_cuda_kernel([batch = spec.node.i("batch_axis", 1), time = spec.node.i("time_axis", 0)](CudaContext& c) { run_reverse(c, batch, time); }, "by lengths");
}

}  // namespace

std::vector<CudaOp> cuda_transpose() {
  return {{.name = "Transpose", .make = &transpose},
          {.name = "DepthToSpace", .make = &move_blocks<depth_to_space_move>},
          {.name = "SpaceToDepth", .make = &move_blocks<space_to_depth_move>},
          {.name = "ReverseSequence", .make = &reverse_sequence}};
}

}  // namespace infopt::cuda
