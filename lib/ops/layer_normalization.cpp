// LayerNormalization and RMSNormalization: each row, the dimensions from the axis on, normalized by itself.
#include <algorithm>

#include "lib/base/share.h"
#include "lib/ops/broadcast.h"
#include "lib/ops/elementwise.h"
#include "lib/ops/row_norm.h"

namespace infopt {
namespace {

struct Options {
  int64_t axis;
  float epsilon;
  bool centered;  ///< LayerNormalization; else only the root mean square is divided out
};

/// Gain or bias: one row for all rows, or one each where `stride` isn't 0.
template <class T> struct RowOperand {
  const T* data = nullptr;
  int64_t stride = 0;
  Tensor keep = {};
};

/// Broadcasts the input over the row, or where it varies from row to row over the whole shape.
template <class T> RowOperand<T> row_operand(KernelContext& context, size_t i, const Shape& shape, size_t axis) {
  if (!context.has(i)) return {};
  const Tensor given = cast(context.in(i), dtype_of<T>);
  const Shape row(shape.begin() + static_cast<int64_t>(axis), shape.end());
  if (given.shape() == row) return {given.data<T>(), 0, given};
  bool varies = false;
  const size_t missing = shape.size() - std::min(shape.size(), given.shape().size());
  for (size_t d = missing; d < axis; ++d) varies = varies || given.shape()[d - missing] != 1;
  Shape target = shape;
  if (!varies) std::fill_n(target.begin(), axis, 1);
  if (broadcast_shape(given.shape(), target) != target)
    throw Error(ErrorKind::Malformed, "the shape " + to_string(given.shape()) + " doesn't broadcast to " + to_string(shape));
  struct First {
    T operator()(T a, T) const { return a; }
  };
  const T zero = 0;
  Tensor full(dtype_of<T>, target);
  run_binary_loop(binary_loop<T, T, First>, {full.dtype(), given.raw(), given.shape()}, {full.dtype(), reinterpret_cast<const std::byte*>(&zero), {}}, target,
                  full.mutable_raw(), full.dtype());
  return {full.data<T>(), varies ? element_count(row) : 0, full};
}

template <class T> void run_rows(KernelContext& context, const Options& options, const T* x, T* y, const Shape& shape, size_t axis) {
  int64_t rows = 1, n = 1;
  Shape outer = shape;
  for (size_t d = 0; d < shape.size(); ++d) {
    (d < axis ? rows : n) *= shape[d];
    if (d >= axis) outer[d] = 1;
  }
  if (!context.has(1)) throw Error(ErrorKind::Malformed, "its scale is missing");
  const RowOperand<T> gain = row_operand<T>(context, 1, shape, axis), bias = row_operand<T>(context, 2, shape, axis);
  std::vector<T> means(static_cast<size_t>(rows)), inverses(means.size());
  const T epsilon = static_cast<T>(options.epsilon);
  constexpr int64_t kLeastElements = 1 << 14;
  share_work(rows, std::max<int64_t>(1, kLeastElements / std::max<int64_t>(n, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const Moments<T> m = options.centered ? row_moments(x + r * n, n, epsilon) : Moments<T>{T(0), inverse_rms(x + r * n, n, epsilon)};
      normalize_row(x + r * n, y + r * n, n, m.mean, m.inverse_deviation, gain.data + r * gain.stride, bias.data ? bias.data + r * bias.stride : nullptr);
      means[static_cast<size_t>(r)] = m.mean;
      inverses[static_cast<size_t>(r)] = m.inverse_deviation;
    }
  });
  if (context.wanted(1)) context.set(1, cast(Tensor::vector(means), DType::F32).reshaped(outer));
  if (context.wanted(2)) context.set(2, cast(Tensor::vector(inverses), DType::F32).reshaped(outer));
}

void run(KernelContext& context, const Options& options) {
  const Tensor& x = context.in(0);
  const DType dtype = x.dtype();
  const Shape shape = x.shape();
  const size_t axis = static_cast<size_t>(normalize_axis(options.axis, x.rank()));
  if (is_16_bit_float(dtype)) {
    Tensor wide = cast(x, DType::F32);
    run_rows(context, options, wide.data<float>(), wide.mutable_data<float>(), shape, axis);
    return context.set(0, cast(wide, dtype));
  }
  const std::byte* data = x.raw();
  if (dtype != DType::F32 && dtype != DType::F64) refuse_type(dtype);
  Tensor& y = context.out_reusing(0, 0, dtype, shape);
  if (dtype == DType::F32) run_rows(context, options, reinterpret_cast<const float*>(data), y.mutable_data<float>(), shape, axis);
  else run_rows(context, options, reinterpret_cast<const double*>(data), y.mutable_data<double>(), shape, axis);
}

template <bool centered> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  const Options options{spec.node.i("axis", -1), spec.node.f("epsilon", 1e-5f), centered};
  return make_kernel([options](KernelContext& context) { run(context, options); });
}

}  // namespace

std::vector<OpDef> op_layer_normalization() {
  return {{.name = "LayerNormalization", .cpu = make<true>}, {.name = "RMSNormalization", .cpu = make<false>}};
}

}  // namespace infopt
