// MaxPool, AveragePool, LpPool and their global forms, in the layout that their input has: channels last for float32 images. NaN is greater than
// any number.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/base/simd.h"
#include "lib/ops/op.h"
#include "lib/runtime/layout.h"
#include "lib/runtime/pool_window.h"

namespace infopt {
namespace {

enum class PoolKind { Max, Average, Lp };

/// out[c·out_step][·] takes in[c·step][·], `count` times: positions of one tap, or, with an out_step of 0, taps of one position. Rows that follow each other
/// on both sides are one.
INFOPT_SIMD void max_rows(float* out, int64_t out_step, const float* in, int64_t step, int64_t count, int64_t channels) {
  if (step == channels && out_step == channels) channels *= count, count = 1;
  for (int64_t c = 0; c < count; ++c, out += out_step, in += step)
    for (int64_t i = 0; i < channels; ++i) out[i] = in[i] > out[i] || in[i] != in[i] ? in[i] : out[i];
}
INFOPT_SIMD void add_rows(float* out, int64_t out_step, const float* in, int64_t step, int64_t count, int64_t channels) {
  if (step == channels && out_step == channels) channels *= count, count = 1;
  for (int64_t c = 0; c < count; ++c, out += out_step, in += step)
    for (int64_t i = 0; i < channels; ++i) out[i] += in[i];
}
INFOPT_SIMD void scale_row(float* out, float by, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] *= by;
}

/// In double, eight sums side by side.
INFOPT_SIMD double sum_of(const float* in, int64_t n) {
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t j = 0; j < 8; ++j) sums[j] += static_cast<double>(in[i + j]);
  for (; i < n; ++i) sums[0] += static_cast<double>(in[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/// Calls f(offset) for each input position (in D×H×W order) under the window of one output position.
template <class F> void each_under(const Pool3& p, const int64_t o[3], F f) {
  int64_t at[3];
  for (int64_t a = 0; a < p.kernel[0]; ++a) {
    at[0] = o[0] * p.stride[0] - p.begin[0] + a * p.dilation[0];
    if (at[0] < 0 || at[0] >= p.in[0]) continue;
    for (int64_t b = 0; b < p.kernel[1]; ++b) {
      at[1] = o[1] * p.stride[1] - p.begin[1] + b * p.dilation[1];
      if (at[1] < 0 || at[1] >= p.in[1]) continue;
      for (int64_t c = 0; c < p.kernel[2]; ++c) {
        at[2] = o[2] * p.stride[2] - p.begin[2] + c * p.dilation[2];
        if (at[2] >= 0 && at[2] < p.in[2]) f((at[0] * p.in[1] + at[1]) * p.in[2] + at[2]);
      }
    }
  }
}

/// What an average is divided by.
int64_t divisor(const Pool3& p, const int64_t o[3], bool count_pads) {
  return std::max<int64_t>(1, places(p, 0, o[0], count_pads) * places(p, 1, o[1], count_pads) * places(p, 2, o[2], count_pads));
}

template <class F> void each_output(const Pool3& p, F f) {
  int64_t index = 0;
  for (int64_t a = 0; a < p.out[0]; ++a)
    for (int64_t b = 0; b < p.out[1]; ++b)
      for (int64_t c = 0; c < p.out[2]; ++c) {
        const int64_t o[3] = {a, b, c};
        f(o, index++);
      }
}

struct PoolOptions {
  PoolKind kind;
  WindowAttributes window;
  bool global = false, count_pads = false, column_major = false;
  int64_t p = 2;
};

/// One row of outputs, tap by tap of the window's rows: float32, channels last. `across`: places() of each output along the last axis.
void pool_row(const PoolOptions& options, const Pool3& p, const std::vector<int64_t>& across, const float* in, float* out, int64_t channels, int64_t a, int64_t b) {
  const bool max = options.kind == PoolKind::Max;
  const auto take = max ? max_rows : add_rows;
  std::fill_n(out, p.out[2] * channels, max ? -std::numeric_limits<float>::infinity() : 0.0f);
  each_input_row(p, a, b, [&](int64_t above) {
    const float* row = in + above * p.in[2] * channels;
    if (p.out[2] == 1 && p.begin[2] == 0 && (p.kernel[2] - 1) * p.dilation[2] < p.in[2])
      return take(out, 0, row, p.dilation[2] * channels, p.kernel[2], channels);
    each_tap_of_row(p, [&](int64_t at, int64_t first, int64_t last) { take(out + first * channels, channels, row + at * channels, p.stride[2] * channels, last - first, channels); });
  });
  if (max) return;
  const int64_t others = places(p, 0, a, options.count_pads) * places(p, 1, b, options.count_pads);
  for (size_t c = 0, end = 0; c < across.size(); c = end) {
    for (end = c + 1; end < across.size() && across[end] == across[c];) ++end;
    scale_row(out + static_cast<int64_t>(c) * channels, 1.0f / static_cast<float>(std::max<int64_t>(1, others * across[c])), static_cast<int64_t>(end - c) * channels);
  }
}

constexpr int64_t kLeastWork = 1 << 15;  ///< elements under windows that are worth a thread

void pool_rows(const PoolOptions& options, const Pool3& p, const float* in, float* out, int64_t items, int64_t channels) {
  const int64_t rows = p.out[0] * p.out[1], each = p.out[2] * channels, work = each * volume(p.kernel);
  std::vector<int64_t> across(static_cast<size_t>(p.out[2]));
  for (size_t c = 0; c < across.size(); ++c) across[c] = places(p, 2, static_cast<int64_t>(c), options.count_pads);
  share_work(items * rows, std::max<int64_t>(1, kLeastWork / (work + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      pool_row(options, p, across, in + r / rows * volume(p.in) * channels, out + r * each, channels, r % rows / p.out[1], r % p.out[1]);
  });
}

/// True where each plane has one output, whose window is the plane.
bool whole_planes(const Pool3& p) {
  for (int i = 0; i < 3; ++i)
    if (p.out[i] != 1 || p.begin[i] != 0 || p.end[i] != 0 || p.dilation[i] != 1 || p.kernel[i] != p.in[i]) return false;
  return true;
}

void mean_planes(const float* in, float* out, int64_t planes, int64_t size) {
  share_work(planes, std::max<int64_t>(1, kLeastWork / (size + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<float>(sum_of(in + i * size, size) / static_cast<double>(std::max<int64_t>(size, 1)));
  });
}

template <class T> void max_plane(const PoolOptions& options, const Pool3& p, const T* in, T* out, int64_t* where, int64_t base) {
  each_output(p, [&](const int64_t o[3], int64_t index) {
    bool any = false;
    T best = std::numeric_limits<T>::lowest();
    int64_t best_at = 0;
    each_under(p, o, [&](int64_t at) {
      const T v = in[at];
      if (any && !(v > best || (v != v && best == best))) return;
      any = true;
      best = v;
      best_at = at;
    });
    out[index] = best;
    if (!where) return;
    if (options.column_major) {
      const int64_t c = best_at % p.in[2], b = best_at / p.in[2] % p.in[1], a = best_at / (p.in[2] * p.in[1]);
      best_at = (c * p.in[1] + b) * p.in[0] + a;
    }
    where[index] = base + best_at;
  });
}

void mean_plane(const PoolOptions& options, const Pool3& p, const double* in, double* out) {
  each_output(p, [&](const int64_t o[3], int64_t index) {
    double sum = 0;
    each_under(p, o, [&](int64_t at) { sum += options.kind == PoolKind::Lp ? std::pow(std::fabs(in[at]), static_cast<double>(options.p)) : in[at]; });
    out[index] = options.kind == PoolKind::Lp ? std::pow(sum, 1.0 / static_cast<double>(options.p)) : sum / static_cast<double>(divisor(p, o, options.count_pads));
  });
}

template <class T> void max_planes(const PoolOptions& options, const Pool3& p, const Tensor& x, Tensor& y, int64_t* where) {
  const int64_t planes = x.dim(0) * x.dim(1), in = volume(p.in), out = volume(p.out);
  for (int64_t n = 0; n < planes; ++n)
    max_plane(options, p, x.data<T>() + n * in, y.mutable_data<T>() + n * out, where ? where + n * out : nullptr, n * in);
}

void pool_plain(const PoolOptions& options, const Pool3& p, KernelContext& context, const Shape& shape) {
  const Tensor& x = context.in(0);
  if (options.kind == PoolKind::Max) {
    int64_t* where = context.wanted(1) ? context.out(1, DType::I64, shape).mutable_data<int64_t>() : nullptr;
    if (x.dtype() == DType::F16 || x.dtype() == DType::BF16) {
      Tensor wide = cast(x, DType::F32), y(DType::F32, shape);
      max_planes<float>(options, p, wide, y, where);
      return context.set(0, cast(y, x.dtype()));
    }
    Tensor& y = context.out(0, x.dtype(), shape);
    switch (x.dtype()) {
      case DType::F32: return max_planes<float>(options, p, x, y, where);
      case DType::F64: return max_planes<double>(options, p, x, y, where);
      case DType::U8: return max_planes<uint8_t>(options, p, x, y, where);
      case DType::I8: return max_planes<int8_t>(options, p, x, y, where);
      default: throw Error(ErrorKind::Unsupported, "a pooling of " + std::string(name_of(x.dtype())));
    }
  }
  const Tensor wide = cast(x, DType::F64);
  Tensor y(DType::F64, shape);
  const int64_t planes = x.dim(0) * x.dim(1), in = volume(p.in), out = volume(p.out);
  for (int64_t n = 0; n < planes; ++n) mean_plane(options, p, wide.data<double>() + n * in, y.mutable_data<double>() + n * out);
  context.set(0, cast(y, x.dtype()));
}

void pool(const PoolOptions& options, KernelContext& context) {
  Layout layout;
  const Tensor x = context.in_any(0, layout);
  if (x.rank() < 3 || x.rank() > 5) throw Error(ErrorKind::Malformed, "a pooling of shape " + to_string(x.shape()));
  const Shape spatial(x.shape().begin() + 2, x.shape().end());
  const Window w = options.global ? resolve_window({}, spatial, spatial) : resolve_window(options.window, spatial, options.window.kernel);
  const Pool3 p = widen(w, spatial);
  Shape shape{x.dim(0), x.dim(1)};
  shape.insert(shape.end(), w.out.begin(), w.out.end());
  if (x.dtype() != DType::F32 || options.kind == PoolKind::Lp || context.wanted(1)) return pool_plain(options, p, context, shape);
  const bool plain = layout == Layout::Plain;
  Tensor& y = context.out(0, DType::F32, shape, plain ? Layout::Plain : Layout::ChannelsLast);
  const float* from = x.data<float>();
  float* to = y.mutable_data<float>();
  if (plain && options.kind == PoolKind::Average && whole_planes(p)) return mean_planes(from, to, x.dim(0) * x.dim(1), volume(p.in));
  // A plane by itself is an image of one channel.
  if (plain) return pool_rows(options, p, from, to, x.dim(0) * x.dim(1), 1);
  pool_rows(options, p, from, to, x.dim(0), x.dim(1));
}

template <PoolKind kind, bool global> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  PoolOptions options{kind, WindowAttributes::of(spec.node), global, spec.node.i("count_include_pad", 0) != 0, spec.node.i("storage_order", 0) != 0, spec.node.i("p", 2)};
  // Of a maximum's place the number of its item is a part.
  return make_kernel([options](KernelContext& context) { pool(options, context); }, spec.node.outputs.size() == 1 ? ByItem::First : ByItem::No);
}

}  // namespace

std::vector<OpDef> op_pool() {
  return {
      {.name = "MaxPool", .cpu = make<PoolKind::Max, false>},           {.name = "GlobalMaxPool", .cpu = make<PoolKind::Max, true>},
      {.name = "AveragePool", .cpu = make<PoolKind::Average, false>},   {.name = "GlobalAveragePool", .cpu = make<PoolKind::Average, true>},
      {.name = "LpPool", .cpu = make<PoolKind::Lp, false>},             {.name = "GlobalLpPool", .cpu = make<PoolKind::Lp, true>},
  };
}

}  // namespace infopt
