// ReduceSum, ReduceMean, ReduceMax….
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "lib/base/simd.h"
#include "lib/base/vector_math.h"
#include "lib/ops/reduce.h"

namespace infopt {
namespace {

using Kind = ReduceKind;
using View = ReduceView;

/// The offsets of all combinations of the parts, in row-major order.
std::vector<int64_t> offsets_of(const std::vector<View::Part>& parts) {
  std::vector<int64_t> offsets{0};
  for (const auto& part : parts) {
    std::vector<int64_t> longer;
    longer.reserve(offsets.size() * static_cast<size_t>(part.size));
    for (int64_t o : offsets)
      for (int64_t i = 0; i < part.size; ++i) longer.push_back(o + i * part.stride);
    offsets = std::move(longer);
  }
  return offsets;
}

/// One reduction, by an accumulator A: double for floats, and integers wrap in unsigned.
template <class T> T reduce_floats(Kind kind, const T* x, const std::vector<int64_t>& at) {
  const double infinity = std::numeric_limits<double>::infinity();
  double total = kind == Kind::Prod ? 1 : kind == Kind::Max || kind == Kind::LogSumExp ? -infinity : kind == Kind::Min ? infinity : 0;
  for (int64_t i : at) {
    const double v = static_cast<double>(x[i]);
    switch (kind) {
      case Kind::Sum: case Kind::Mean: case Kind::LogSum: total += v; break;
      case Kind::Prod: total *= v; break;
      case Kind::L1: total += std::fabs(v); break;
      case Kind::L2: case Kind::SumSquare: total += v * v; break;
      case Kind::Max: case Kind::LogSumExp: total = v > total || v != v ? v : total; break;
      case Kind::Min: total = v < total || v != v ? v : total; break;
    }
  }
  if (kind == Kind::Mean) total /= static_cast<double>(at.size());
  if (kind == Kind::L2) total = std::sqrt(total);
  if (kind == Kind::LogSum) total = std::log(total);
  if (kind == Kind::LogSumExp && std::isfinite(total)) {
    double exps = 0;
    for (int64_t i : at) exps += std::exp(static_cast<double>(x[i]) - total);
    total += std::log(exps);
  }
  return static_cast<T>(total);
}

template <class T> T reduce_integers(Kind kind, const T* x, const std::vector<int64_t>& at) {
  if (kind == Kind::Max || kind == Kind::Min) {
    T best = kind == Kind::Max ? std::numeric_limits<T>::lowest() : std::numeric_limits<T>::max();
    for (int64_t i : at) best = kind == Kind::Max ? std::max(best, x[i]) : std::min(best, x[i]);
    return best;
  }
  if (kind == Kind::Sum || kind == Kind::Prod || kind == Kind::SumSquare || kind == Kind::L1) {
    uint64_t total = kind == Kind::Prod ? 1 : 0;
    for (int64_t i : at) {
      const uint64_t v = static_cast<uint64_t>(x[i]);
      if (kind == Kind::Prod) total *= v;
      else total += kind == Kind::SumSquare ? v * v : kind == Kind::L1 && x[i] < T(0) ? uint64_t{0} - v : v;
    }
    return static_cast<T>(total);
  }
  if (kind == Kind::Mean) {
    if (at.empty()) return 0;
    if constexpr (std::is_signed_v<T>) {
      int64_t total = 0;
      for (int64_t i : at) total = static_cast<int64_t>(static_cast<uint64_t>(total) + static_cast<uint64_t>(x[i]));
      return static_cast<T>(total / static_cast<int64_t>(at.size()));
    } else {
      uint64_t total = 0;
      for (int64_t i : at) total += x[i];
      return static_cast<T>(total / at.size());
    }
  }
  std::vector<double> values(at.size());
  std::vector<int64_t> places(at.size());
  for (size_t i = 0; i < at.size(); ++i) values[i] = static_cast<double>(x[at[i]]), places[i] = static_cast<int64_t>(i);
  const double y = reduce_floats(kind, values.data(), places);
  const double top = static_cast<double>(std::numeric_limits<T>::max()), low = static_cast<double>(std::numeric_limits<T>::lowest());
  return y >= top ? std::numeric_limits<T>::max() : y > low ? static_cast<T>(y) : std::numeric_limits<T>::lowest();
}

/// Any pattern of axes and any type, element by element.
template <class T> void reduce_any(Kind kind, const T* x, T* y, const View& v) {
  if (v.kept_count == 0) return;
  const std::vector<int64_t> kept = offsets_of(v.kept), reduced = offsets_of(v.reduced);
  for (size_t k = 0; k < kept.size(); ++k) {
    if constexpr (std::is_floating_point_v<T>) y[k] = reduce_floats(kind, x + kept[k], reduced);
    else y[k] = reduce_integers(kind, x + kept[k], reduced);
  }
}

constexpr int64_t kShort = 8;

/// Rows too short for a vector: real and imaginary parts, corners of boxes.
INFOPT_SIMD void add_short_rows(const float* x, float* y, int64_t rows, int64_t n, bool square) {
  for (int64_t r = 0; r < rows; ++r, x += n) {
    float total = 0;
    for (int64_t i = 0; i < n; ++i) total += square ? x[i] * x[i] : x[i];
    y[r] = total;
  }
}

bool reduce_short_rows(Kind kind, const float* x, float* y, int64_t rows, int64_t n) {
  if (kind != Kind::Sum && kind != Kind::Mean && kind != Kind::SumSquare && kind != Kind::L2) return false;
  add_short_rows(x, y, rows, n, kind == Kind::SumSquare || kind == Kind::L2);
  for (int64_t r = 0; kind == Kind::Mean && r < rows; ++r) y[r] /= static_cast<float>(n);
  for (int64_t r = 0; kind == Kind::L2 && r < rows; ++r) y[r] = std::sqrt(y[r]);
  return true;
}

/// Rows of n float32, each reduced to one.
bool reduce_rows(Kind kind, const float* x, float* y, int64_t rows, int64_t n) {
  if (n <= kShort && reduce_short_rows(kind, x, y, rows, n)) return true;
  switch (kind) {
    case Kind::Sum: for (int64_t r = 0; r < rows; ++r) y[r] = sum(x + r * n, n); return true;
    case Kind::Mean: for (int64_t r = 0; r < rows; ++r) y[r] = sum(x + r * n, n) / static_cast<float>(n); return true;
    case Kind::Max: for (int64_t r = 0; r < rows; ++r) y[r] = max_of(x + r * n, n); return true;
    case Kind::Min: for (int64_t r = 0; r < rows; ++r) y[r] = min_of(x + r * n, n); return true;
    case Kind::L1: for (int64_t r = 0; r < rows; ++r) y[r] = sum_abs(x + r * n, n); return true;
    case Kind::L2: for (int64_t r = 0; r < rows; ++r) y[r] = std::sqrt(sum_squares(x + r * n, n)); return true;
    case Kind::SumSquare: for (int64_t r = 0; r < rows; ++r) y[r] = sum_squares(x + r * n, n); return true;
    default: return false;
  }
}

/// n rows of `columns` float32, added up (or their squares, or the larger, or the lesser).
INFOPT_SIMD void add_columns(const float* x, float* y, int64_t n, int64_t columns) {
  for (int64_t j = 0; j < columns; ++j) y[j] = 0.0f;
  for (int64_t i = 0; i < n; ++i)
#pragma GCC ivdep
    for (int64_t j = 0; j < columns; ++j) y[j] += x[i * columns + j];
}
INFOPT_SIMD void add_column_squares(const float* x, float* y, int64_t n, int64_t columns) {
  for (int64_t j = 0; j < columns; ++j) y[j] = 0.0f;
  for (int64_t i = 0; i < n; ++i)
#pragma GCC ivdep
    for (int64_t j = 0; j < columns; ++j) y[j] += x[i * columns + j] * x[i * columns + j];
}
INFOPT_SIMD void max_columns(const float* x, float* y, int64_t n, int64_t columns, float sign) {
  for (int64_t j = 0; j < columns; ++j) y[j] = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i)
#pragma GCC ivdep
    for (int64_t j = 0; j < columns; ++j) {
      const float v = x[i * columns + j] * sign;
      y[j] = v > y[j] || v != v ? v : y[j];
    }
  for (int64_t j = 0; j < columns; ++j) y[j] *= sign;
}

bool reduce_columns(Kind kind, const float* x, float* y, const View& v) {
  const bool squares = kind == Kind::L2 || kind == Kind::SumSquare, extreme = kind == Kind::Max || kind == Kind::Min;
  if (!squares && !extreme && kind != Kind::Sum && kind != Kind::Mean) return false;
  for (int64_t o = 0; o < v.outer; ++o, x += v.n * v.inner, y += v.inner) {
    if (squares) add_column_squares(x, y, v.n, v.inner);
    else if (extreme) max_columns(x, y, v.n, v.inner, kind == Kind::Max ? 1.0f : -1.0f);
    else add_columns(x, y, v.n, v.inner);
    if (kind == Kind::Mean)
      for (int64_t j = 0; j < v.inner; ++j) y[j] /= static_cast<float>(v.n);
    if (kind == Kind::L2)
      for (int64_t j = 0; j < v.inner; ++j) y[j] = std::sqrt(y[j]);
  }
  return true;
}

void reduce_f32(Kind kind, const float* x, float* y, const View& v) {
  if (v.kept_count == 0) return;
  if (v.simple && v.n > 0 && (v.inner == 1 ? reduce_rows(kind, x, y, v.outer, v.n) : reduce_columns(kind, x, y, v))) return;
  reduce_any(kind, x, y, v);
}

void reduce_bools(Kind kind, const bool* x, bool* y, const View& v) {
  if (kind != Kind::Max && kind != Kind::Min) refuse_type(DType::Bool);
  if (v.kept_count == 0) return;
  const std::vector<int64_t> kept = offsets_of(v.kept), reduced = offsets_of(v.reduced);
  for (size_t k = 0; k < kept.size(); ++k) {
    bool result = kind == Kind::Min;
    for (int64_t i : reduced) result = kind == Kind::Max ? result || x[kept[k] + i] : result && x[kept[k] + i];
    y[k] = result;
  }
}

void run(KernelContext& context, const ReduceOptions& options) {
  Layout layout;
  const Tensor* input = &context.in_any(0, layout);
  const DType dtype = input->dtype();
  const std::vector<bool> reduce = reduced_axes(context, options, input->rank());
  Shape lying = input->shape();
  std::vector<bool> reduce_lying = reduce;
  if (layout == Layout::ChannelsLast && over_space(reduce)) {
    std::rotate(lying.begin() + 1, lying.begin() + 2, lying.end());
    std::rotate(reduce_lying.begin() + 1, reduce_lying.begin() + 2, reduce_lying.end());
  } else if (layout != Layout::Plain) {
    input = &context.in(0);
  }
  const Shape shape = reduced_shape(input->shape(), reduce, options.keep_dims);
  const View view = reduce_view(lying, reduce_lying);
  if (is_16_bit_float(dtype)) {
    const Tensor wide = cast(*input, DType::F32);
    Tensor y(DType::F32, shape);
    reduce_f32(options.kind, wide.data<float>(), y.mutable_data<float>(), view);
    return context.set(0, cast(y, dtype));
  }
  const std::byte* x = input->raw();
  Tensor& output = context.out(0, dtype, shape);
  if (dtype == DType::F32) return reduce_f32(options.kind, reinterpret_cast<const float*>(x), output.mutable_data<float>(), view);
  if (dtype == DType::Bool) return reduce_bools(options.kind, reinterpret_cast<const bool*>(x), output.mutable_data<bool>(), view);
  visit_number(dtype, [&]<class T>() { reduce_any(options.kind, reinterpret_cast<const T*>(x), output.mutable_data<T>(), view); });
}

template <Kind kind> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  return make_kernel([options = reduce_options(spec, kind)](KernelContext& context) { run(context, options); });
}

}  // namespace

std::vector<OpDef> op_reduce() {
  return {{.name = "ReduceSum", .cpu = make<Kind::Sum>},       {.name = "ReduceMean", .cpu = make<Kind::Mean>},
          {.name = "ReduceMax", .cpu = make<Kind::Max>},       {.name = "ReduceMin", .cpu = make<Kind::Min>},
          {.name = "ReduceProd", .cpu = make<Kind::Prod>},     {.name = "ReduceL1", .cpu = make<Kind::L1>},
          {.name = "ReduceL2", .cpu = make<Kind::L2>},         {.name = "ReduceSumSquare", .cpu = make<Kind::SumSquare>},
          {.name = "ReduceLogSum", .cpu = make<Kind::LogSum>}, {.name = "ReduceLogSumExp", .cpu = make<Kind::LogSumExp>}};
}

}  // namespace infopt
