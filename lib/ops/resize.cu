// Resize and Upsample in the layout that the input has. A first kernel makes each axis' table of taps, by the CPU's formulas; a second one sums
// over the taps of all axes at once, in the order in which the CPU goes through the axes.
#include "lib/ops/resize.h"

#include <algorithm>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/moves.h"

namespace infopt::cuda {
namespace {

constexpr int kThreads = 256, kMostResized = 4;

/// Taps of output i: index[t·out + i], weight[t·out + i]. The first index is negative where the output lies outside of the region.
struct TapTable {
  const int32_t* index = nullptr;
  const float* weight = nullptr;
  int width = 1;
  int64_t out = 1, stride = 0;  ///< stride: of the axis in the input
};

__global__ void make_taps(Sampling s, AxisPlan a, int64_t width, int32_t* index, float* weight) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < a.out; i += static_cast<int64_t>(gridDim.x) * kThreads) {
    put_taps(s, a, i, width, a.out, index + i, weight ? weight + i : nullptr);
    if (lies_outside(s, a, i)) index[i] = -1;
  }
}

/// Axes of the output as they lie in memory; `table` is the axis' number among the resized ones, -1 for the others.
template <class I> struct ResizeAxes {
  int rank = 0, tables = 0;
  Divider<I> size[kMostAxes];
  int table[kMostAxes] = {};
  int64_t stride[kMostAxes] = {};
  TapTable taps[kMostResized];  ///< in the order of resampling

  /// Offset along the axes that aren't resized; the places along the others go to `at`. False where the element lies outside.
  INFOPT_DEVICE bool find(I element, int64_t& offset, int64_t (&at)[kMostResized]) const {
    bool inside = true;
    offset = 0;
    for (int d = rank - 1; d >= 0; --d) {
      I place = element;
      element = divide_off(place, size[d]);
      if (table[d] < 0) {
        offset += static_cast<int64_t>(place) * stride[d];
      } else {
        at[table[d]] = static_cast<int64_t>(place);
        inside = inside && taps[table[d]].index[place] >= 0;
      }
    }
    return inside;
  }
};

template <class T, class I> __global__ void pick_nearest(const T* x, T* y, I count, ResizeAxes<I> axes, T outside) {
  for (I e = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<I>(gridDim.x) * kThreads) {
    int64_t from, at[kMostResized];
    const bool inside = axes.find(e, from, at);
    for (int k = 0; inside && k < axes.tables; ++k) from += axes.taps[k].index[at[k]] * axes.taps[k].stride;
    y[e] = inside ? x[from] : outside;
  }
}

template <class T> struct Computed { using Type = float; };
template <> struct Computed<double> { using Type = double; };
template <class T> using ComputedIn = typename Computed<T>::Type;

template <class T> INFOPT_DEVICE ComputedIn<T> load(T v) {
  if constexpr (std::is_arithmetic_v<T>) return static_cast<ComputedIn<T>>(v);
  else return load_float(v);
}
/// 8-bit integers are cut off toward zero, clamped; a hair is added first, since the weights' sum carries rounding errors.
template <class T> INFOPT_DEVICE T stored(ComputedIn<T> v, bool round) {
  T t;
  if constexpr (std::is_integral_v<T>) {
    const double low = static_cast<T>(-1) < static_cast<T>(1) ? -128 : 0, value = static_cast<double>(v);
    const double whole = round ? rint(value) : trunc(value + copysign(1.0 / 1024, value));
    t = static_cast<T>(static_cast<int>(whole < low ? low : whole > low + 255 ? low + 255 : whole));
  } else {
    store_float(t, v);
  }
  return t;
}
template <> INFOPT_DEVICE double stored<double>(double v, bool) { return v; }

/// Sums along the first L of the resized axes, the first innermost.
template <int L, class T, class I> INFOPT_DEVICE ComputedIn<T> sum_taps(const T* x, int64_t from, const ResizeAxes<I>& axes, const int64_t (&at)[kMostResized]) {
  if constexpr (L == 0) {
    return load(x[from]);
  } else {
    const TapTable& t = axes.taps[L - 1];
    ComputedIn<T> sum = 0;
    for (int k = 0; k < t.width; ++k) {
      const int64_t place = k * t.out + at[L - 1];
      const ComputedIn<T> part = sum_taps<L - 1, T, I>(x, from + t.index[place] * t.stride, axes, at) * static_cast<ComputedIn<T>>(t.weight[place]);
      sum = k ? sum + part : part;
    }
    return sum;
  }
}

template <int L, class T, class I> __global__ void interpolate(const T* x, T* y, I count, ResizeAxes<I> axes, float outside, bool round) {
  for (I e = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<I>(gridDim.x) * kThreads) {
    int64_t from, at[kMostResized];
    const bool inside = axes.find(e, from, at);
    y[e] = stored<T>(inside ? sum_taps<L, T, I>(x, from, axes, at) : static_cast<ComputedIn<T>>(outside), round);
  }
}

/// One resized tensor: its axes as they lie in memory, with the tables of those that are resized.
struct Resized {
  std::vector<AxisPlan> axes;
  std::vector<size_t> order;
  std::vector<TapTable> taps;  ///< in that order
  std::vector<Tensor> memory;
};

void make_tables(CudaContext& c, const ResizeSpec& s, Resized& r) {
  Shape shape;
  for (const AxisPlan& a : r.axes) shape.push_back(a.in);
  const Shape strides = strides_in(shape, Layout::Plain);
  r.order = resample_order(r.axes);
  if (r.order.size() > static_cast<size_t>(kMostResized)) unsupported("a Resize of " + std::to_string(r.order.size()) + " axes on the device");
  for (const size_t d : r.order) {
    const AxisPlan& a = r.axes[d];
    const int64_t width = tap_width(s, a);
    const bool weighs = s.mode != Interpolation::Nearest;
    r.memory.push_back(c.scratch(DType::I32, {width, a.out}));
    int32_t* index = r.memory.back().mutable_data<int32_t>();
    if (weighs) r.memory.push_back(c.scratch(DType::F32, {width, a.out}));
    float* weight = weighs ? r.memory.back().mutable_data<float>() : nullptr;
    INFOPT_LAUNCH(c.stream(), make_taps, {grid_for(a.out, kThreads)}, {kThreads}, 0, static_cast<const Sampling&>(s), a, width, index, weight);
    r.taps.push_back({index, weight, static_cast<int>(width), a.out, strides[d]});
  }
}

/// Neighbours that aren't resized are one axis. `by` elements at the end are one.
template <class I> ResizeAxes<I> axes_of(const Resized& r, int64_t by) {
  ResizeAxes<I> axes;
  axes.tables = static_cast<int>(r.order.size());
  for (size_t k = 0; k < r.taps.size(); ++k) axes.taps[k] = r.taps[k], axes.taps[k].stride /= by;
  struct Axis { int64_t n, stride; int table; };
  std::vector<Axis> all;
  int64_t stride = 1;
  for (size_t d = r.axes.size(); d-- > 0; stride *= r.axes[d].in) {
    const auto at = std::find(r.order.begin(), r.order.end(), d);
    const Axis a{r.axes[d].out, stride, at == r.order.end() ? -1 : static_cast<int>(at - r.order.begin())};
    if (a.table < 0 && !all.empty() && all.back().table < 0) all.back().n *= a.n;
    else all.push_back(a);
  }
  if (by > 1) all[0].n /= by;
  for (size_t d = 1; by > 1 && d < all.size(); ++d) all[d].stride /= by;
  std::reverse(all.begin(), all.end());
  if (all.size() > static_cast<size_t>(kMostAxes)) unsupported("a Resize of a tensor of that many axes");
  axes.rank = static_cast<int>(all.size());
  for (size_t d = 0; d < all.size(); ++d) axes.size[d] = Divider<I>(all[d].n), axes.stride[d] = all[d].stride, axes.table[d] = all[d].table;
  return axes;
}

/// Elements behind the last resized axis.
int64_t run_of(const Resized& r) {
  int64_t run = 1;
  for (size_t d = r.axes.size(); d-- > 0 && r.axes[d].identity();) run *= r.axes[d].out;
  return run;
}

void pick(CudaContext& c, const Tensor& x, Tensor& y, const Resized& r, const ResizeSpec& s) {
  const size_t bytes = element_bytes(x.dtype());
  const Tensor outside = cast(Tensor::scalar(s.extrapolation), x.dtype());
  size_t wide = std::max<size_t>(16, bytes);
  while (wide > bytes && (at(run_of(r)) * bytes % wide || reinterpret_cast<uintptr_t>(x.raw()) % wide)) wide /= 2;
  const int64_t count = y.size() / static_cast<int64_t>(wide / bytes);
  with_element(wide, [&](auto value) {
    using T = decltype(value);
    for (size_t i = 0; i < wide; i += bytes) std::copy_n(outside.raw(), bytes, reinterpret_cast<std::byte*>(&value) + i);
    with_index(count, [&](auto index) {
      using I = decltype(index);
      INFOPT_LAUNCH(c.stream(), (pick_nearest<T, I>), {grid_for(count, kThreads)}, {kThreads}, 0, reinterpret_cast<const T*>(x.raw()), reinterpret_cast<T*>(y.mutable_raw()), static_cast<I>(count),
                    axes_of<I>(r, static_cast<int64_t>(wide / bytes)), value);
    });
  });
}

template <class T> void interpolate_typed(CudaContext& c, const Tensor& x, Tensor& y, const Resized& r, const ResizeSpec& s) {
  const auto* from = reinterpret_cast<const T*>(x.raw());
  auto* to = reinterpret_cast<T*>(y.mutable_raw());
  with_index(y.size(), [&](auto index) {
    using I = decltype(index);
    const auto run = [&](auto kernel) {
      INFOPT_LAUNCH(c.stream(), kernel, {grid_for(y.size(), kThreads)}, {kThreads}, 0, from, to, static_cast<I>(y.size()), axes_of<I>(r, 1), s.extrapolation, s.antialias);
    };
    switch (r.order.size()) {
      case 1: return run(interpolate<1, T, I>);
      case 2: return run(interpolate<2, T, I>);
      case 3: return run(interpolate<3, T, I>);
      default: return run(interpolate<4, T, I>);
    }
  });
}

void resize(CudaContext& c, const ResizeSpec& s, const std::vector<float>& scales, const std::vector<int64_t>& sizes, const std::vector<float>& roi) {
  Layout layout;
  const Tensor& x = c.in_any(0, layout);
  Resized r{plan_resize(s, x.shape(), scales, sizes, roi), {}, {}, {}};
  Shape shape;
  for (const AxisPlan& a : r.axes) {
    if (a.in == 0 && a.out != 0) malformed("Resize of an empty tensor of shape " + to_string(x.shape()));
    shape.push_back(a.out);
  }
  if (std::all_of(r.axes.begin(), r.axes.end(), [](const AxisPlan& a) { return a.identity(); })) return c.set(0, x, layout);
  Tensor& y = c.out(0, x.dtype(), shape, layout);
  if (y.size() == 0) return;
  if (layout == Layout::ChannelsLast) std::rotate(r.axes.begin() + 1, r.axes.begin() + 2, r.axes.end());
  make_tables(c, s, r);
  if (s.mode == Interpolation::Nearest) return pick(c, x, y, r, s);
  switch (x.dtype()) {
    case DType::F32: return interpolate_typed<float>(c, x, y, r, s);
    case DType::F16: return interpolate_typed<half>(c, x, y, r, s);
    case DType::BF16: return interpolate_typed<bfloat16>(c, x, y, r, s);
    case DType::F64: return interpolate_typed<double>(c, x, y, r, s);
    case DType::U8: return interpolate_typed<uint8_t>(c, x, y, r, s);
    case DType::I8: return interpolate_typed<int8_t>(c, x, y, r, s);
    default: unsupported("Resize between elements of " + std::string(name_of(x.dtype())));
  }
}

void check(const KernelSpec& spec, const ResizeSpec& s) {
  need_whole_bytes(spec, {0});
  if (s.mode != Interpolation::Nearest) need_type(spec, 0, {DType::F32, DType::F16, DType::BF16, DType::F64, DType::U8, DType::I8});
}

std::vector<float> floats(CudaContext& c, size_t i) { return c.has(i) ? to_vector<float>(c.host(i)) : std::vector<float>{}; }

constexpr const char* kDescription = "all axes at once, in the input's layout";

std::unique_ptr<Kernel> upsample_attribute(const KernelSpec& spec) {
  const ResizeSpec s = ResizeSpec::simple(spec.node);
  check(spec, s);
  return make_cuda_kernel([s, scales = spec.node.floats("scales")](CudaContext& c) { resize(c, s, scales, {}, {}); }, kDescription);
}

std::unique_ptr<Kernel> resize_by_scales(const KernelSpec& spec) {
  const ResizeSpec s = ResizeSpec::simple(spec.node);
  check(spec, s);
  return make_cuda_kernel([s](CudaContext& c) { resize(c, s, floats(c, 1), {}, {}); }, kDescription);
}

std::unique_ptr<Kernel> resize_full(const KernelSpec& spec) {
  const ResizeSpec s = ResizeSpec::full(spec.node);
  check(spec, s);
  return make_cuda_kernel(
      [s](CudaContext& c) {
        const std::vector<int64_t> sizes = c.has(3) ? integers(c.host(3)) : std::vector<int64_t>{};
        resize(c, s, sizes.empty() ? floats(c, 2) : std::vector<float>{}, sizes, floats(c, 1));
      },
      kDescription);
}

}  // namespace

std::vector<CudaOp> cuda_resize() {
  return {{.name = "Upsample", .since = 7, .until = 8, .make = &upsample_attribute},
          {.name = "Upsample", .since = 9, .make = &resize_by_scales},
          {.name = "Resize", .since = 10, .until = 10, .make = &resize_by_scales},
          {.name = "Resize", .since = 11, .make = &resize_full}};
}

}  // namespace infopt::cuda
