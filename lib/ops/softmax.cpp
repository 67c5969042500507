// Softmax, LogSoftmax, Hardmax. Before opset 13 the tensor is taken as a matrix, split at the axis; from then on one axis is normalized.
#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/base/float_math.h"
#include "lib/base/share.h"
#include "lib/base/simd.h"
#include "lib/base/vector_math.h"
#include "lib/ops/elementwise.h"

namespace infopt {
namespace {

enum class Kind { Softmax, LogSoftmax, Hardmax };

/// A tensor as [outer, n, inner], normalized along n.
struct View {
  int64_t outer = 1, n = 1, inner = 1;
};

void softmax_row(const float* x, float* y, int64_t n) {
  const float total = exp_and_sum(x, y, n, max_of(x, n));
  scale_offset(y, y, n, 1.0f / total, 0.0f);
}

void log_softmax_row(const float* x, float* y, int64_t n, float* buffer) {
  const float top = max_of(x, n);
  const float total = exp_and_sum(x, buffer, n, top);
  const float log_total = std::log(total);
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - top) - log_total;
}

void hardmax_row(const float* x, float* y, int64_t n) {
  const int64_t best = std::max_element(x, x + n) - x;
  std::fill(y, y + n, 0.0f);
  y[best] = 1.0f;
}

constexpr int64_t kColumns = 64;

/// A block of up to 64 columns of n elements, `stride` apart: y = exp(x − max) and its sums.
INFOPT_SIMD void exp_columns(const float* x, float* y, int64_t n, int64_t stride, int64_t columns, float* top, float* total) {
  for (int64_t j = 0; j < columns; ++j) top[j] = x[j], total[j] = 0.0f;
  for (int64_t i = 1; i < n; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      const float v = x[i * stride + j];
      top[j] = v > top[j] || v != v ? v : top[j];
    }
  for (int64_t i = 0; i < n; ++i) {
    const float* from = x + i * stride;
    float* to = y + i * stride;
#pragma GCC ivdep
    for (int64_t j = 0; j < columns; ++j) {
      const float e = exp_f(from[j] - top[j]);
      to[j] = e;
      total[j] += e;
    }
  }
}

INFOPT_SIMD void scale_columns(float* y, int64_t n, int64_t stride, int64_t columns, const float* total) {
  float inverse[kColumns];
  for (int64_t j = 0; j < columns; ++j) inverse[j] = 1.0f / total[j];
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < columns; ++j) y[i * stride + j] *= inverse[j];
}

void softmax_columns(const float* x, float* y, const View& v) {
  float top[kColumns], total[kColumns];
  for (int64_t o = 0; o < v.outer; ++o)
    for (int64_t j = 0; j < v.inner; j += kColumns) {
      const int64_t at = o * v.n * v.inner + j, columns = std::min(kColumns, v.inner - j);
      exp_columns(x + at, y + at, v.n, v.inner, columns, top, total);
      scale_columns(y + at, v.n, v.inner, columns, total);
    }
}

/// Rows gathered from columns, done, and put back.
void other_columns(Kind kind, const float* x, float* y, const View& v) {
  std::vector<float> row(static_cast<size_t>(v.n)), done(row.size()), buffer(row.size());
  for (int64_t o = 0; o < v.outer; ++o)
    for (int64_t j = 0; j < v.inner; ++j) {
      const int64_t at = o * v.n * v.inner + j;
      for (int64_t i = 0; i < v.n; ++i) row[static_cast<size_t>(i)] = x[at + i * v.inner];
      if (kind == Kind::Hardmax) hardmax_row(row.data(), done.data(), v.n);
      else log_softmax_row(row.data(), done.data(), v.n, buffer.data());
      for (int64_t i = 0; i < v.n; ++i) y[at + i * v.inner] = done[static_cast<size_t>(i)];
    }
}

void run_floats(Kind kind, const float* x, float* y, const View& v) {
  if (v.n == 0 || v.outer == 0 || v.inner == 0) return;
  if (v.inner > 1) return kind == Kind::Softmax ? softmax_columns(x, y, v) : other_columns(kind, x, y, v);
  constexpr int64_t kLeastElements = 1 << 13;
  const int64_t least = std::max<int64_t>(1, kLeastElements / v.n);
  if (kind == Kind::Softmax)
    return share_work(v.outer, least, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) softmax_row(x + o * v.n, y + o * v.n, v.n);
    });
  std::vector<float> buffer(kind == Kind::LogSoftmax ? static_cast<size_t>(v.n) : 0);
  for (int64_t o = 0; o < v.outer; ++o, x += v.n, y += v.n) {
    if (kind == Kind::LogSoftmax) log_softmax_row(x, y, v.n, buffer.data());
    else hardmax_row(x, y, v.n);
  }
}

void run_doubles(Kind kind, const double* x, double* y, const View& v) {
  for (int64_t o = 0; o < v.outer; ++o)
    for (int64_t j = 0; j < v.inner; ++j) {
      const int64_t at = o * v.n * v.inner + j;
      int64_t best = 0;
      for (int64_t i = 1; i < v.n; ++i)
        if (x[at + i * v.inner] > x[at + best * v.inner]) best = i;
      const double top = v.n ? x[at + best * v.inner] : 0;
      double total = 0;
      for (int64_t i = 0; i < v.n; ++i) total += std::exp(x[at + i * v.inner] - top);
      for (int64_t i = 0; i < v.n; ++i) {
        const double d = x[at + i * v.inner] - top;
        y[at + i * v.inner] = kind == Kind::Hardmax ? (i == best ? 1.0 : 0.0) : kind == Kind::Softmax ? std::exp(d) / total : d - std::log(total);
      }
    }
}

View view_of(const Shape& shape, int64_t axis, bool matrix) {
  View v;
  for (int64_t d = 0; d < static_cast<int64_t>(shape.size()); ++d) {
    const int64_t size = shape[static_cast<size_t>(d)];
    if (d < axis) v.outer *= size;
    else if (d == axis || matrix) v.n *= size;
    else v.inner *= size;
  }
  return v;
}

void run(KernelContext& context, Kind kind, int64_t wanted_axis, bool matrix) {
  Layout layout;
  const Tensor* input = &context.in_any(0, layout);
  const int64_t rank = input->rank();
  const int64_t axis = matrix && wanted_axis == rank ? rank : rank == 0 ? 0 : normalize_axis(wanted_axis, rank);
  const bool channels = layout == Layout::ChannelsLast && axis == 1 && !matrix;
  if (!channels && layout != Layout::Plain) input = &context.in(0), layout = Layout::Plain;
  const DType dtype = input->dtype();
  View v = view_of(input->shape(), axis, matrix);
  if (channels) v = {v.outer * v.inner, v.n, 1};
  if (is_16_bit_float(dtype)) {
    Tensor wide = cast(*input, DType::F32);
    run_floats(kind, wide.data<float>(), wide.mutable_data<float>(), v);
    return context.set(0, cast(wide, dtype), layout);
  }
  const std::byte* x = input->raw();
  if (dtype != DType::F32 && dtype != DType::F64) refuse_type(dtype);
  Tensor& output = dtype == DType::F32 ? context.out_reusing(0, 0, dtype, Shape(input->shape()), layout) : context.out(0, dtype, input->shape(), layout);
  if (dtype == DType::F32) run_floats(kind, reinterpret_cast<const float*>(x), output.mutable_data<float>(), v);
  else run_doubles(kind, reinterpret_cast<const double*>(x), output.mutable_data<double>(), v);
}

template <Kind kind> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  const bool matrix = spec.opset < 13;
  const int64_t axis = spec.node.i("axis", matrix ? 1 : -1);
  return make_kernel([=](KernelContext& context) { run(context, kind, axis, matrix); });
}

}  // namespace

std::vector<OpDef> op_softmax() {
  return {{.name = "Softmax", .cpu = make<Kind::Softmax>},
          {.name = "LogSoftmax", .cpu = make<Kind::LogSoftmax>},
          {.name = "Hardmax", .cpu = make<Kind::Hardmax>}};
}

}  // namespace infopt
