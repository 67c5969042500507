// MaxPool, AveragePool, LpPool and their global forms, in the layout that the input has. NaN is greater than any number.
#include <cmath>
#include <limits>

#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/moves.h"
#include "lib/runtime/cuda/pooling.h"

namespace infopt::cuda {
namespace {

enum class PoolKind { Max, Average, Lp };

/// What elements are computed in.
template <class T> struct Computed { using Type = float; };
template <> struct Computed<double> { using Type = double; };
template <> struct Computed<uint8_t> { using Type = int; };
template <> struct Computed<int8_t> { using Type = int; };
template <class T> using ComputedIn = typename Computed<T>::Type;

template <class T> INFOPT_DEVICE ComputedIn<T> load(T v) {
  if constexpr (std::is_same_v<ComputedIn<T>, float>) return load_float(v);
  else return static_cast<ComputedIn<T>>(v);
}
template <class T> INFOPT_DEVICE T stored(ComputedIn<T> v) {
  T t;
  if constexpr (std::is_same_v<ComputedIn<T>, float>) store_float(t, v);
  else t = static_cast<T>(v);
  return t;
}

template <class T> struct Greatest {
  using Sum = ComputedIn<T>;
  Sum least;
  INFOPT_DEVICE Sum none() const { return least; }
  INFOPT_DEVICE void add(Sum& sum, T v) const { merge(sum, load(v)); }
  INFOPT_DEVICE void merge(Sum& sum, Sum v) const { sum = v > sum || v != v ? v : sum; }
  INFOPT_DEVICE T result(Sum sum, int, int) const { return stored<T>(sum); }
};

template <class T> struct Mean {
  using Sum = ComputedIn<T>;
  bool count_pads;
  INFOPT_DEVICE Sum none() const { return 0; }
  INFOPT_DEVICE void add(Sum& sum, T v) const { sum += load(v); }
  INFOPT_DEVICE void merge(Sum& sum, Sum v) const { sum += v; }
  INFOPT_DEVICE T result(Sum sum, int inside, int padded) const {
    const int by = count_pads ? padded : inside;
    return stored<T>(sum / static_cast<Sum>(by > 1 ? by : 1));
  }
};

template <class T> struct PowerMean {
  using Sum = ComputedIn<T>;
  int p;
  INFOPT_DEVICE Sum none() const { return 0; }
  INFOPT_DEVICE void add(Sum& sum, T v) const {
    const Sum a = load(v) < 0 ? -load(v) : load(v);
    sum += p == 1 ? a : p == 2 ? a * a : static_cast<Sum>(pow(a, static_cast<Sum>(p)));
  }
  INFOPT_DEVICE void merge(Sum& sum, Sum v) const { sum += v; }
  INFOPT_DEVICE T result(Sum sum, int, int) const {
    return stored<T>(p == 1 ? sum : p == 2 ? static_cast<Sum>(sqrt(sum)) : static_cast<Sum>(pow(sum, 1 / static_cast<Sum>(p))));
  }
};

/// The greatest and where it is, in the plain layout.
template <class T> __global__ void pool_places(const T* x, T* y, int64_t* where, PoolAxes p, PoolItems<uint64_t> items, ComputedIn<T> least, bool column_major) {
  for (uint64_t e = static_cast<uint64_t>(blockIdx.x) * kPoolThreads + threadIdx.x; e < items.count; e += static_cast<uint64_t>(gridDim.x) * kPoolThreads) {
    uint64_t rest = e, place[3];
    for (int i = 2; i >= 0; --i) {
      place[i] = rest;
      rest = divide_off(place[i], items.out[i]);
    }
    const PoolTaps d(p, 0, static_cast<int>(place[0])), h(p, 1, static_cast<int>(place[1])), w(p, 2, static_cast<int>(place[2]));
    const int64_t image = static_cast<int64_t>(rest) * p.in[0] * p.in[1] * p.in[2];
    ComputedIn<T> best = least;
    int64_t best_at = 0;
    bool any = false;
    for (int a = d.first; a < d.last; ++a)
      for (int b = h.first; b < h.last; ++b)
        for (int c = w.first; c < w.last; ++c) {
          const int64_t z = d.at + a * p.dilation[0], row = h.at + b * p.dilation[1], column = w.at + c * p.dilation[2];
          const ComputedIn<T> v = load(x[image + (z * p.in[1] + row) * p.in[2] + column]);
          if (any && !(v > best || (v != v && best == best))) continue;
          any = true;
          best = v;
          best_at = column_major ? (column * p.in[1] + row) * p.in[0] + z : (z * p.in[1] + row) * p.in[2] + column;
        }
    y[e] = stored<T>(best);
    where[e] = image + best_at;
  }
}

struct PoolOptions {
  WindowAttributes window;
  bool global = false, count_pads = false, column_major = false;
  int p = 2;
};

/// A window of padding alone gives the least number: of what the CPU's kernels compute in.
template <class T> ComputedIn<T> least_of(Layout layout) {
  using C = ComputedIn<T>;
  if (std::is_same_v<T, uint8_t>) return static_cast<C>(0);
  if (std::is_same_v<T, int8_t>) return static_cast<C>(-128);
  return std::is_same_v<T, float> && layout == Layout::ChannelsLast ? -std::numeric_limits<C>::infinity() : std::numeric_limits<C>::lowest();
}

struct Pooling {
  PoolAxes axes;
  Shape shape;
  Layout layout;
  int64_t images, channels;  ///< as the kernels see them
};

template <class T, PoolKind kind> void run_typed(CudaContext& c, const PoolOptions& o, const Tensor& x, const Pooling& pooling) {
  constexpr int wide = static_cast<int>(16 / sizeof(T)) > 8 ? 8 : static_cast<int>(16 / sizeof(T));
  Tensor& y = c.out(0, x.dtype(), pooling.shape, pooling.layout);
  const bool places = kind == PoolKind::Max && c.wanted(1);
  int64_t* where = places ? c.out(1, DType::I64, pooling.shape).mutable_data<int64_t>() : nullptr;
  if (y.size() == 0) return;
  const auto* from = reinterpret_cast<const T*>(x.raw());
  auto* to = reinterpret_cast<T*>(y.mutable_raw());
  const auto run = [&](const auto& op) { pool_pixels<wide>(c.stream(), op, from, to, pooling.axes, pooling.images, pooling.channels); };
  if constexpr (kind == PoolKind::Max) {
    const auto least = least_of<T>(pooling.layout);
    if (!places) return run(Greatest<T>{least});
    INFOPT_LAUNCH(c.stream(), pool_places<T>, {grid_for(y.size(), kPoolThreads)}, {kPoolThreads}, 0, from, to, where, pooling.axes, PoolItems<uint64_t>(pooling.axes, pooling.images, 1), least,
                  o.column_major);
  } else if constexpr (kind == PoolKind::Average) {
    run(Mean<T>{o.count_pads});
  } else {
    run(PowerMean<T>{o.p});
  }
}

template <PoolKind kind> void pool(CudaContext& c, const PoolOptions& o) {
  Layout layout;
  const Tensor* x = &c.in_any(0, layout);
  if (kind == PoolKind::Max && c.wanted(1)) x = &c.in(0), layout = Layout::Plain;  // indices count the plain layout
  if (x->rank() < 3 || x->rank() > 5) malformed("a pooling of shape " + to_string(x->shape()));
  const Shape spatial(x->shape().begin() + 2, x->shape().end());
  const Window w = o.global ? resolve_window({}, spatial, spatial) : resolve_window(o.window, spatial, o.window.kernel);
  Pooling pooling{pool_axes(w, spatial), {x->dim(0), x->dim(1)}, layout, x->dim(0), x->dim(1)};
  pooling.shape.insert(pooling.shape.end(), w.out.begin(), w.out.end());
  if (layout == Layout::Plain) pooling.images *= std::exchange(pooling.channels, 1);
  switch (x->dtype()) {
    case DType::F32: return run_typed<float, kind>(c, o, *x, pooling);
    case DType::F16: return run_typed<half, kind>(c, o, *x, pooling);
    case DType::BF16: return run_typed<bfloat16, kind>(c, o, *x, pooling);
    case DType::F64: return run_typed<double, kind>(c, o, *x, pooling);
    case DType::U8: if constexpr (kind == PoolKind::Max) return run_typed<uint8_t, kind>(c, o, *x, pooling); break;
    case DType::I8: if constexpr (kind == PoolKind::Max) return run_typed<int8_t, kind>(c, o, *x, pooling); break;
    default: break;
  }
  unsupported("a pooling of " + std::string(name_of(x->dtype())));
}

template <PoolKind kind, bool global> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  if (kind == PoolKind::Max) need_type(spec, 0, {DType::F32, DType::F16, DType::BF16, DType::F64, DType::U8, DType::I8});
  else need_type(spec, 0, {DType::F32, DType::F16, DType::BF16, DType::F64});
  const int64_t p = spec.node.i("p", 2);
  if (p < 1 || p > 64) unsupported("a pooling with p " + std::to_string(p));
  const PoolOptions options{WindowAttributes::of(spec.node), global, spec.node.i("count_include_pad", 0) != 0, spec.node.i("storage_order", 0) != 0, static_cast<int>(p)};
  return make_cuda_kernel([options](CudaContext& c) { pool<kind>(c, options); }, "in the input's layout");
}

}  // namespace

std::vector<CudaOp> cuda_pool() {
  return {
      {.name = "MaxPool", .make = make<PoolKind::Max, false>},         {.name = "GlobalMaxPool", .make = make<PoolKind::Max, true>},
      {.name = "AveragePool", .make = make<PoolKind::Average, false>}, {.name = "GlobalAveragePool", .make = make<PoolKind::Average, true>},
      {.name = "LpPool", .make = make<PoolKind::Lp, false>},           {.name = "GlobalLpPool", .make = make<PoolKind::Lp, true>},
  };
}

}  // namespace infopt::cuda
