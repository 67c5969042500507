// GridSample on the device, in one to three spatial dimensions: a thread finds a point's taps once, in float64 as the CPU's kernel, and goes through a share of the channels.
#include "lib/ops/grid_sample.h"

#include <algorithm>

#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/element.h"
#include "lib/runtime/cuda/element_memory.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/moves.h"

namespace infopt::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kMostTaps = 4;
constexpr int64_t kChannels = 8;  ///< of a thread

struct Samples {
  const void *x, *grid;
  void* y;
  DType type, grid_type;
  GridSpec spec;
  int dims;
  int64_t size[3];  ///< spatial, unused ones in front with 1
  int64_t points, channels, parts, count;
};

/// Mirrors x at both ends until it lies within [low, high].
INFOPT_DEVICE double reflect(double x, double low, double high) {
  const double range = high - low;
  if (!(range > 0)) return low;
  const double beyond = x < low ? low - x : x > high ? x - high : 0;
  if (beyond == 0) return x;
  const double turns = floor(beyond / range), rest = beyond - turns * range;
  const bool even = fmod(turns, 2.0) == 0;
  return (x < low) == even ? low + rest : high - rest;
}

/// What one axis contributes to a sample: places (-1: zero) and weights.
struct AxisTaps {
  int count = 0;
  int64_t place[kMostTaps];
  double weight[kMostTaps];

  INFOPT_DEVICE void put(const GridSpec& s, int64_t p, double by, int64_t n, double low, double high) {
    if (s.border == GridBorder::Reflection) p = static_cast<int64_t>(reflect(static_cast<double>(p), low, high));
    if (s.border != GridBorder::Zeros) p = p < 0 ? 0 : p > n - 1 ? n - 1 : p;
    place[count] = p < 0 || p >= n ? -1 : p;
    weight[count++] = by;
  }

  INFOPT_DEVICE AxisTaps(const GridSpec& s, double normalized, int64_t n) { find(s, normalized, n); }

  INFOPT_DEVICE void find(const GridSpec& s, double normalized, int64_t n) {
    const double length = static_cast<double>(n), low = s.align_corners ? 0 : -0.5, high = s.align_corners ? length - 1 : length - 0.5;
    double x = s.align_corners ? (normalized + 1) / 2 * (length - 1) : ((normalized + 1) * length - 1) / 2;
    if (!(fabs(x) < 1e15)) x = x > 0 ? 1e15 : -1e15;
    if (s.mode == GridSampling::Nearest) x = nearbyint(x);
    if (x < low || x > high) {
      if (s.border == GridBorder::Border && s.mode != GridSampling::Cubic) x = x < 0 ? 0 : x > length - 1 ? length - 1 : x;
      if (s.border == GridBorder::Reflection) x = reflect(x, low, high);
    }
    const double whole = floor(x), f = x - whole;
    const int64_t p = static_cast<int64_t>(whole);
    if (s.mode == GridSampling::Nearest) return put(s, static_cast<int64_t>(x), 1, n, low, high);
    if (s.mode == GridSampling::Linear) {
      put(s, p, 1 - f, n, low, high);
      return put(s, p + 1, f, n, low, high);
    }
    put(s, p - 1, far_weight(f + 1), n, low, high);
    put(s, p, near_weight(f), n, low, high);
    put(s, p + 1, near_weight(1 - f), n, low, high);
    put(s, p + 2, far_weight(2 - f), n, low, high);
  }
  INFOPT_DEVICE static double far_weight(double d) { return ((-0.75 * d + 3.75) * d - 6) * d + 3; }
  INFOPT_DEVICE static double near_weight(double d) { return (1.25 * d - 2.25) * d * d + 1; }
};

/// The grid's coordinates come last axis first; axes that aren't there have one place.
INFOPT_DEVICE double coordinate(const Samples& s, int64_t point, int axis) {
  const int d = 2 - axis;
  return d < s.dims ? load_one<double>(s.grid_type, s.grid, point * s.dims + d) : 0;
}

template <class W> __global__ void __launch_bounds__(kThreads) sample(const __grid_constant__ Samples s) {
  const GridSpec one{GridSampling::Nearest, GridBorder::Border, true};
  for (int64_t e = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; e < s.count; e += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t p = e % s.points, part = e / s.points % s.parts, n = e / (s.points * s.parts), point = n * s.points + p;
    const AxisTaps z(s.dims > 2 ? s.spec : one, coordinate(s, point, 0), s.size[0]), y(s.dims > 1 ? s.spec : one, coordinate(s, point, 1), s.size[1]), x(s.spec, coordinate(s, point, 2), s.size[2]);
    const int64_t last = (part + 1) * kChannels < s.channels ? (part + 1) * kChannels : s.channels, area = s.size[0] * s.size[1] * s.size[2];
    for (int64_t c = part * kChannels; c < last; ++c) {
      const int64_t base = (n * s.channels + c) * area;
      W sum = 0;
      for (int i = 0; i < z.count; ++i)
        for (int j = 0; j < y.count; ++j)
          for (int k = 0; k < x.count; ++k)
            if (z.place[i] >= 0 && y.place[j] >= 0 && x.place[k] >= 0)
              sum += static_cast<W>(z.weight[i] * y.weight[j] * x.weight[k]) * load_one<W>(s.type, s.x, base + (z.place[i] * s.size[1] + y.place[j]) * s.size[2] + x.place[k]);
      store_one(s.type, s.y, (n * s.channels + c) * s.points + p, sum);
    }
  }
}

void run(CudaContext& c, const GridSpec& spec) {
  const Tensor &x = c.in(0), &grid = c.in(1);
  const Shape shape = grid_result(x, grid);
  if (x.rank() > 5) unsupported("GridSample over more than three axes on CUDA");
  Tensor& y = c.out(0, x.dtype(), shape);
  if (y.size() == 0) return;
  Samples s{x.raw(), grid.raw(), y.mutable_raw(), x.dtype(), grid.dtype(), spec, static_cast<int>(x.rank() - 2), {1, 1, 1}, product(grid.shape(), 1, grid.shape().size() - 1), x.dim(1), 0, 0};
  for (int64_t d = 2; d < x.rank(); ++d) s.size[3 - x.rank() + d] = x.dim(d);
  s.parts = blocks_for(s.channels, kChannels);
  s.count = x.dim(0) * s.parts * s.points;
  const int64_t blocks = std::min<int64_t>(blocks_for(s.count, kThreads), 1 << 20);
  if (compute_for(x.dtype()) == Compute::Double) INFOPT_LAUNCH(c.stream(), sample<double>, {blocks}, {kThreads}, 0, s);
  else INFOPT_LAUNCH(c.stream(), sample<float>, {blocks}, {kThreads}, 0, s);
}

std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  need_type(spec, 0, {DType::F32, DType::F16, DType::BF16, DType::F64});
  need_type(spec, 1, {DType::F32, DType::F16, DType::BF16, DType::F64});
  return make_cuda_kernel([s = GridSpec::of(spec)](CudaContext& c) { run(c, s); }, "a thread for each point and eight channels");
}

}  // namespace

std::vector<CudaOp> cuda_grid_sample() { return {{.name = "GridSample", .since = 16, .make = &make}}; }

}  // namespace infopt::cuda
