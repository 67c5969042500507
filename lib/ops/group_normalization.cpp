// InstanceNormalization, GroupNormalization, MeanVarianceNormalization, LpNormalization.
#include <cmath>

#include "lib/ops/elementwise.h"
#include "lib/ops/row_norm.h"

namespace infopt {
namespace {

/// Each group of channels of each image is normalized, and then each channel scaled and shifted.
struct Options {
  int64_t groups;  ///< 0: as many as channels
  float epsilon;
  bool gain_of_group;  ///< gain and bias are given for groups, not channels
};

template <class T> void normalize_groups(const T* x, T* y, const Shape& shape, const Options& options, const std::vector<T>& gain, const std::vector<T>& bias) {
  const int64_t channels = shape[1], groups = options.groups ? options.groups : channels;
  int64_t space = 1;
  for (size_t d = 2; d < shape.size(); ++d) space *= shape[d];
  const int64_t in_group = channels / groups, n = in_group * space;
  for (int64_t row = 0; row < shape[0] * groups; ++row) {
    const Moments<T> m = row_moments(x + row * n, n, static_cast<T>(options.epsilon));
    for (int64_t c = 0; c < in_group; ++c) {
      const int64_t group = row % groups, at = row * n + c * space;
      const size_t k = static_cast<size_t>(options.gain_of_group ? group : group * in_group + c);
      const T scale = m.inverse_deviation * gain[k];
      scale_offset(x + at, y + at, space, scale, bias[k] - m.mean * scale);
    }
  }
}

void run_groups(KernelContext& context, const Options& options) {
  const Tensor& x = context.in(0);
  const DType dtype = x.dtype();
  const Shape shape = x.shape();
  if (x.rank() < 2) throw Error(ErrorKind::Malformed, "a tensor of shape " + to_string(shape) + " has no channels");
  const int64_t channels = shape[1], groups = options.groups ? options.groups : channels;
  const int64_t gains = options.gain_of_group ? groups : channels;
  if (groups < 0 || (groups > 0 && channels % groups)) throw Error(ErrorKind::Malformed, std::to_string(channels) + " channels don't divide into " + std::to_string(groups) + " groups");
  if (context.in(1).size() != gains || context.in(2).size() != gains)
    throw Error(ErrorKind::Malformed, "scale and bias should have " + std::to_string(gains) + " elements");
  if (dtype == DType::F64) {
    Tensor y(dtype, shape);
    if (y.size()) normalize_groups(x.data<double>(), y.mutable_data<double>(), shape, options, to_vector<double>(context.in(1)), to_vector<double>(context.in(2)));
    return context.set(0, y);
  }
  if (dtype != DType::F32 && !is_16_bit_float(dtype)) refuse_type(dtype);
  const Tensor wide = cast(x, DType::F32);
  Tensor y(DType::F32, shape);
  if (y.size()) normalize_groups(wide.data<float>(), y.mutable_data<float>(), shape, options, to_vector<float>(context.in(1)), to_vector<float>(context.in(2)));
  context.set(0, cast(y, dtype));
}

std::unique_ptr<Kernel> make_instance(const KernelSpec& spec) {
  const Options options{0, spec.node.f("epsilon", 1e-5f), false};
  return make_kernel([options](KernelContext& context) { run_groups(context, options); });
}

std::unique_ptr<Kernel> make_group(const KernelSpec& spec) {
  const Options options{spec.node.i("num_groups", 0), spec.node.f("epsilon", 1e-5f), spec.opset < 21};
  if (options.groups <= 0) throw Error(ErrorKind::Malformed, "GroupNormalization's num_groups is " + std::to_string(options.groups));
  return make_kernel([options](KernelContext& context) { run_groups(context, options); });
}

/// Calls f(element, group) for all elements in order; elements that differ only along the axes are one group.
template <class F> void each_with_group(const Shape& shape, const std::vector<bool>& along, F f) {
  std::vector<int64_t> index(shape.size(), 0), stride(shape.size(), 0);
  int64_t groups = 1, group = 0;
  for (size_t d = shape.size(); d-- > 0;)
    if (!along[d]) stride[d] = groups, groups *= shape[d];
  const int64_t count = element_count(shape);
  for (int64_t i = 0; i < count; ++i) {
    f(static_cast<size_t>(i), static_cast<size_t>(group));
    for (size_t d = shape.size(); d-- > 0;) {
      group += stride[d];
      if (++index[d] < shape[d]) break;
      group -= stride[d] * shape[d];
      index[d] = 0;
    }
  }
}

/// (x − mean) / (deviation + 1e-9) over the axes.
void run_mean_variance(KernelContext& context, const std::vector<int64_t>& axes) {
  const Tensor& x = context.in(0);
  if (!is_float(x.dtype())) refuse_type(x.dtype());
  std::vector<bool> along(x.shape().size(), false);
  for (int64_t axis : axes) along[static_cast<size_t>(normalize_axis(axis, x.rank()))] = true;
  const std::vector<double> values = to_vector<double>(x);
  int64_t groups = 1;
  for (size_t d = 0; d < along.size(); ++d) groups *= along[d] ? 1 : x.shape()[d];
  const double count = static_cast<double>(x.size()) / static_cast<double>(std::max<int64_t>(groups, 1));
  std::vector<double> mean(static_cast<size_t>(groups), 0.0), deviation(mean);
  each_with_group(x.shape(), along, [&](size_t i, size_t g) { mean[g] += values[i] / count; });
  each_with_group(x.shape(), along, [&](size_t i, size_t g) { deviation[g] += (values[i] - mean[g]) * (values[i] - mean[g]) / count; });
  for (double& d : deviation) d = std::sqrt(d) + 1e-9;
  Tensor y(DType::F64, x.shape());
  double* out = y.mutable_data<double>();
  each_with_group(x.shape(), along, [&](size_t i, size_t g) { out[i] = (values[i] - mean[g]) / deviation[g]; });
  context.set(0, cast(y, x.dtype()));
}

std::unique_ptr<Kernel> make_mean_variance(const KernelSpec& spec) {
  return make_kernel([axes = spec.node.ints("axes", {0, 2, 3})](KernelContext& context) { run_mean_variance(context, axes); });
}

template <class T> void divide_by_norm(const T* x, T* y, int64_t outer, int64_t n, int64_t inner, int64_t p) {
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t j = 0; j < inner; ++j) {
      const int64_t at = o * n * inner + j;
      double norm = 0;
      for (int64_t i = 0; i < n; ++i) {
        const double v = static_cast<double>(x[at + i * inner]);
        norm += p == 1 ? std::fabs(v) : v * v;
      }
      if (p == 2) norm = std::sqrt(norm);
      for (int64_t i = 0; i < n; ++i) y[at + i * inner] = norm == 0 ? T(0) : static_cast<T>(x[at + i * inner] / norm);
    }
}

void run_lp(KernelContext& context, int64_t wanted_axis, int64_t p) {
  const Tensor& x = context.in(0);
  const DType dtype = x.dtype();
  if (dtype != DType::F32 && dtype != DType::F64 && !is_16_bit_float(dtype)) refuse_type(dtype);
  const int64_t axis = normalize_axis(wanted_axis, x.rank());
  int64_t outer = 1, inner = 1;
  for (int64_t d = 0; d < x.rank(); ++d) (d < axis ? outer : inner) *= d == axis ? 1 : x.dim(d);
  const Tensor wide = dtype == DType::F64 ? x : cast(x, DType::F32);
  Tensor y(wide.dtype(), x.shape());
  if (dtype == DType::F64) divide_by_norm(wide.data<double>(), y.mutable_data<double>(), outer, x.dim(axis), inner, p);
  else divide_by_norm(wide.data<float>(), y.mutable_data<float>(), outer, x.dim(axis), inner, p);
  context.set(0, cast(y, dtype));
}

std::unique_ptr<Kernel> make_lp(const KernelSpec& spec) {
  const int64_t p = spec.node.i("p", 2), axis = spec.node.i("axis", -1);
  if (p != 1 && p != 2) throw Error(ErrorKind::Unsupported, "LpNormalization with p = " + std::to_string(p));
  return make_kernel([=](KernelContext& context) { run_lp(context, axis, p); });
}

}  // namespace

std::vector<OpDef> op_group_normalization() {
  return {{.name = "InstanceNormalization", .since = 6, .cpu = make_instance},
          {.name = "GroupNormalization", .cpu = make_group},
          {.name = "MeanVarianceNormalization", .cpu = make_mean_variance},
          {.name = "LpNormalization", .cpu = make_lp}};
}

}  // namespace infopt
