// CumSum and CumProd on the device: a block for each line scans it by tiles, or where many lines lie side by side a thread for each.
#include "lib/base/error.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/element.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/team.h"

namespace infopt::cuda {
namespace {

struct Options {
  bool product, exclusive, reverse;
};

struct Lines {
  const void* x;
  void* y;
  int64_t count, n, inner;
  DType type;
  Options how;
};

template <class W> INFOPT_DEVICE W combine(W a, W b, bool product) {
  if constexpr (std::is_floating_point_v<W>) return product ? a * b : a + b;
  else return static_cast<W>(product ? static_cast<uint64_t>(a) * static_cast<uint64_t>(b) : static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

template <class W> __global__ void __launch_bounds__(256) scan_by_thread(const __grid_constant__ Lines l) {
  for (int64_t line = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; line < l.count; line += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int64_t o = line / l.inner, base = o * l.n * l.inner + (line - o * l.inner);
    W total = l.how.product ? W(1) : W(0);
    for (int64_t i = 0; i < l.n; ++i) {
      const int64_t at = base + (l.how.reverse ? l.n - 1 - i : i) * l.inner;
      const W next = combine(total, load_one<W>(l.type, l.x, at), l.how.product);
      store_one(l.type, l.y, at, l.how.exclusive ? total : next);
      total = next;
    }
  }
}

template <class W> __global__ void __launch_bounds__(256) scan_by_block(const __grid_constant__ Lines l) {
  __shared__ W sums[8];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32, warps = static_cast<int>(blockDim.x) / 32;
  const W nothing = l.how.product ? W(1) : W(0);
  for (int64_t line = blockIdx.x; line < l.count; line += gridDim.x) {
    const int64_t o = line / l.inner, base = o * l.n * l.inner + (line - o * l.inner);
    W before = nothing;  // of the tiles so far
    for (int64_t begin = 0; begin < l.n; begin += blockDim.x) {
      const int64_t i = begin + threadIdx.x, at = base + (l.how.reverse ? l.n - 1 - i : i) * l.inner;
      W v = i < l.n ? load_one<W>(l.type, l.x, at) : nothing;
      INFOPT_UNROLL for (int by = 1; by < 32; by *= 2) {
        const W lower = __shfl_up_sync(0xffffffffu, v, static_cast<unsigned>(by));
        if (lane >= by) v = combine(lower, v, l.how.product);
      }
      if (lane == 31) sums[warp] = v;
      __syncthreads();
      W base_value = before, all = before;
      for (int w = 0; w < warps; ++w) {
        if (w == warp) base_value = all;
        all = combine(all, sums[w], l.how.product);
      }
      const W inclusive = combine(base_value, v, l.how.product), lower = __shfl_up_sync(0xffffffffu, v, 1u);
      const W exclusive = lane == 0 ? base_value : combine(base_value, lower, l.how.product);
      if (i < l.n) store_one(l.type, l.y, at, l.how.exclusive ? exclusive : inclusive);
      before = all;
      __syncthreads();
    }
  }
}

template <class W> void start(Stream& stream, const Lines& l) {
  constexpr int64_t kMostBlocks = 1 << 30;
  if ((l.inner >= 32 && l.count >= 4096) || l.n <= 8) INFOPT_LAUNCH(stream, scan_by_thread<W>, std::min(blocks_for(l.count, 256), kMostBlocks), 256, 0, l);
  else INFOPT_LAUNCH(stream, scan_by_block<W>, std::min(l.count, kMostBlocks), l.n > 128 ? 256 : 32, 0, l);
}

void run(CudaContext& context, const Options& options) {
  const Tensor& x = context.in(0);
  const DType dtype = x.dtype();
  if (bits_of(dtype) < 8 || dtype == DType::Bool || (is_float(dtype) && bits_of(dtype) < 16)) refuse_type(dtype);
  const int64_t axis = normalize_axis(to_scalar<int64_t>(context.host(1)), x.rank());
  Lines l{x.raw(), nullptr, 1, x.dim(axis), 1, dtype, options};
  for (int64_t d = 0; d < x.rank(); ++d) {
    if (d != axis) l.count *= x.dim(d);
    if (d > axis) l.inner *= x.dim(d);
  }
  l.y = context.out(0, dtype, x.shape()).mutable_raw();
  if (x.size() == 0) return;
  switch (compute_for(dtype)) {
    case Compute::Float: return start<float>(context.stream(), l);
    case Compute::Double: return start<double>(context.stream(), l);
    case Compute::Integer: return start<int64_t>(context.stream(), l);
    case Compute::Unsigned: return start<uint64_t>(context.stream(), l);
  }
}

template <bool product> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  const Options options{product, spec.node.i("exclusive", 0) != 0, spec.node.i("reverse", 0) != 0};
  return make_cuda_kernel([options](CudaContext& context) { run(context, options); }, "a scan of each line");
}

}  // namespace

std::vector<CudaOp> cuda_cumulative() { return {{.name = "CumSum", .make = &make<false>}, {.name = "CumProd", .make = &make<true>}}; }

}  // namespace infopt::cuda
