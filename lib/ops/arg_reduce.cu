// ArgMax and ArgMin on the device: a warp or a block for each line along the axis.
#include "lib/base/error.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/element.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/team.h"

namespace infopt::cuda {
namespace {

struct Options {
  bool max, keep_dims, select_last;
  int64_t axis;
};

struct Lines {
  const void* x;
  int64_t* y;
  int64_t count, n, inner;
  DType type;
  bool max, last;
};

template <class W> struct Found {
  W value;
  int64_t place;  ///< −1: none yet
};

/// NaN before any number; of equals the first, or the last (of NaNs always the first).
template <class W> struct Better {
  bool max, last;
  INFOPT_DEVICE bool first_wins(const Found<W>& a, const Found<W>& b) const {
    if (b.place < 0) return true;
    if (a.place < 0) return false;
    const bool a_odd = a.value != a.value, b_odd = b.value != b.value;
    if (a_odd || b_odd) return a_odd && (!b_odd || a.place < b.place);
    if (a.value == b.value) return last ? a.place > b.place : a.place < b.place;
    return max ? a.value > b.value : a.value < b.value;
  }
  INFOPT_DEVICE Found<W> operator()(const Found<W>& a, const Found<W>& b) const { return first_wins(a, b) ? a : b; }
};

template <class W> INFOPT_DEVICE Found<W> best_of_warp(Found<W> v, const Better<W>& better) {
  INFOPT_UNROLL for (int by = 16; by > 0; by /= 2) v = better(v, {__shfl_xor_sync(0xffffffffu, v.value, by), __shfl_xor_sync(0xffffffffu, v.place, by)});
  return v;
}

/// Lines with elements side by side, or few lines.
template <class W> __global__ void __launch_bounds__(256) find_by_block(const __grid_constant__ Lines l) {
  __shared__ W values[8];
  __shared__ int64_t places[8];
  const Better<W> better{l.max, l.last};
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32, warps = static_cast<int>(blockDim.x) / 32;
  for (int64_t line = blockIdx.x; line < l.count; line += gridDim.x) {
    const int64_t o = line / l.inner, base = o * l.n * l.inner + (line - o * l.inner);
    Found<W> best{W(0), -1};
    for (int64_t i = threadIdx.x; i < l.n; i += blockDim.x) best = better(best, {load_one<W>(l.type, l.x, base + i * l.inner), i});
    best = best_of_warp(best, better);
    if (lane == 0) values[warp] = best.value, places[warp] = best.place;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int w = 1; w < warps; ++w) best = better(best, {values[w], places[w]});
      l.y[line] = best.place;
    }
    __syncthreads();
  }
}

/// Many lines that lie side by side: a thread for each.
template <class W> __global__ void __launch_bounds__(256) find_by_thread(const __grid_constant__ Lines l) {
  const Better<W> better{l.max, l.last};
  for (int64_t line = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; line < l.count; line += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int64_t o = line / l.inner, base = o * l.n * l.inner + (line - o * l.inner);
    Found<W> best{W(0), -1};
    for (int64_t i = 0; i < l.n; ++i) best = better(best, {load_one<W>(l.type, l.x, base + i * l.inner), i});
    l.y[line] = best.place;
  }
}

template <class W> void start(Stream& stream, const Lines& l) {
  constexpr int64_t kMostBlocks = 1 << 30;
  if (l.inner >= 32 && l.count >= 4096) INFOPT_LAUNCH(stream, find_by_thread<W>, std::min(blocks_for(l.count, 256), kMostBlocks), 256, 0, l);
  else INFOPT_LAUNCH(stream, find_by_block<W>, std::min(l.count, kMostBlocks), l.n > 512 ? 256 : l.n > 64 ? 64 : 32, 0, l);
}

void run(CudaContext& context, const Options& options) {
  const Tensor& x = context.in(0);
  const int64_t axis = normalize_axis(options.axis, x.rank());
  Lines l{x.raw(), nullptr, 1, x.dim(axis), 1, x.dtype(), options.max, options.select_last};
  Shape shape;
  for (int64_t d = 0; d < x.rank(); ++d) {
    if (d != axis) l.count *= x.dim(d);
    if (d > axis) l.inner *= x.dim(d);
    if (d != axis) shape.push_back(x.dim(d));
    else if (options.keep_dims) shape.push_back(1);
  }
  if (l.n == 0) throw Error(ErrorKind::Malformed, "the axis whose extreme is wanted has no elements");
  if (bits_of(l.type) < 8 || l.type == DType::Bool) refuse_type(l.type);
  l.y = reinterpret_cast<int64_t*>(context.out(0, DType::I64, shape).mutable_raw());
  if (l.count == 0) return;
  switch (compute_for(l.type)) {
    case Compute::Float: return start<float>(context.stream(), l);
    case Compute::Double: return start<double>(context.stream(), l);
    case Compute::Integer: return start<int64_t>(context.stream(), l);
    case Compute::Unsigned: return start<uint64_t>(context.stream(), l);
  }
}

template <bool max> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  const Options options{max, spec.node.i("keepdims", 1) != 0, spec.node.i("select_last_index", 0) != 0, spec.node.i("axis", 0)};
  return make_cuda_kernel([options](CudaContext& context) { run(context, options); }, "a warp or block for each line");
}

}  // namespace

std::vector<CudaOp> cuda_arg_reduce() { return {{.name = "ArgMax", .make = &make<true>}, {.name = "ArgMin", .make = &make<false>}}; }

}  // namespace infopt::cuda
