// BatchNormalization: x·a + b with a and b from the channel's statistics, in any layout. Training mode (one output step of it) too.
#include <cmath>

#include "lib/base/simd.h"
#include "lib/ops/elementwise.h"
#include "lib/ops/row_norm.h"

namespace infopt {
namespace {

struct Options {
  double epsilon, momentum;
  bool training;
};

INFOPT_SIMD void scale_rows(const float* x, float* y, int64_t rows, int64_t n, const float* scale, const float* offset) {
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale[i] + offset[i];
  }
}

void scale_rows(const double* x, double* y, int64_t rows, int64_t n, const double* scale, const double* offset) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < n; ++i) y[r * n + i] = x[r * n + i] * scale[i] + offset[i];
}

/// The tensor's extents: images, channels, and elements of one channel of one image.
struct Extents {
  int64_t batch, channels, space;
};

Extents extents_of(const Shape& shape) {
  if (shape.empty()) throw Error(ErrorKind::Malformed, "BatchNormalization of a scalar");
  Extents e{shape[0], 1, 1};
  if (shape.size() > 1) e.channels = shape[1];
  for (size_t d = 2; d < shape.size(); ++d) e.space *= shape[d];
  return e;
}

template <class T> struct Channels {
  std::vector<T> scale, offset;
};

template <class T> void apply(const T* x, T* y, const Extents& e, bool channels_last, const Channels<T>& c) {
  const T *scale = c.scale.data(), *offset = c.offset.data();
  if (channels_last || e.space == 1) return scale_rows(x, y, e.batch * e.space, e.channels, scale, offset);
  for (int64_t i = 0; i < e.batch * e.channels; ++i)
    scale_offset(x + i * e.space, y + i * e.space, e.space, scale[i % e.channels], offset[i % e.channels]);
}

struct Statistics {
  std::vector<double> mean, variance;
};

std::vector<double> channel_values(KernelContext& context, size_t i, const Extents& e) {
  const Tensor& t = context.in(i);
  if (t.size() != e.channels)
    throw Error(ErrorKind::Malformed, "input " + std::to_string(i) + " of BatchNormalization has " + std::to_string(t.size()) + " elements for " +
                                          std::to_string(e.channels) + " channels");
  return to_vector<double>(t);
}

template <class T> Statistics measure(const T* x, const Extents& e) {
  Statistics s;
  const double count = static_cast<double>(e.batch * e.space);
  for (int64_t c = 0; c < e.channels; ++c) {
    const auto each = [&](auto f) {
      for (int64_t b = 0; b < e.batch; ++b)
        for (int64_t i = 0; i < e.space; ++i) f(static_cast<double>(x[(b * e.channels + c) * e.space + i]));
    };
    double total = 0, squares = 0;
    each([&](double v) { total += v; });
    const double mean = total / count;
    each([&](double v) { squares += (v - mean) * (v - mean); });
    s.mean.push_back(mean);
    s.variance.push_back(squares / count);
  }
  return s;
}

Tensor running(const std::vector<double>& old_values, const std::vector<double>& now, double momentum, DType dtype) {
  std::vector<double> mixed(old_values.size());
  for (size_t c = 0; c < mixed.size(); ++c) mixed[c] = old_values[c] * momentum + now[c] * (1 - momentum);
  return cast(Tensor::vector(mixed), dtype);
}

template <class T> Channels<T> channels_of(const Statistics& s, const std::vector<double>& gain, const std::vector<double>& bias, double epsilon) {
  Channels<T> c;
  for (size_t i = 0; i < gain.size(); ++i) {
    const double scale = gain[i] / std::sqrt(s.variance[i] + epsilon);
    c.scale.push_back(static_cast<T>(scale));
    c.offset.push_back(static_cast<T>(bias[i] - s.mean[i] * scale));
  }
  return c;
}

void run(KernelContext& context, const Options& options) {
  Layout layout;
  const Tensor* input = &context.in_any(0, layout);
  if (options.training && layout != Layout::Plain) input = &context.in(0), layout = Layout::Plain;
  const DType dtype = input->dtype();
  if (dtype != DType::F32 && dtype != DType::F64 && !is_16_bit_float(dtype)) refuse_type(dtype);
  const Shape shape = input->shape();
  const Extents e = extents_of(shape);
  const std::vector<double> gain = channel_values(context, 1, e), bias = channel_values(context, 2, e);
  Statistics s{channel_values(context, 3, e), channel_values(context, 4, e)};
  const Tensor wide = is_16_bit_float(dtype) ? cast(*input, DType::F32) : Tensor();
  const std::byte* x = wide.defined() ? wide.raw() : input->raw();
  if (options.training) {
    const Statistics now = dtype == DType::F64 ? measure(reinterpret_cast<const double*>(x), e) : measure(reinterpret_cast<const float*>(x), e);
    if (context.wanted(1)) context.set(1, running(s.mean, now.mean, options.momentum, context.in(3).dtype()));
    if (context.wanted(2)) context.set(2, running(s.variance, now.variance, options.momentum, context.in(4).dtype()));
    s = now;
  }
  const bool last = layout == Layout::ChannelsLast;
  if (wide.defined()) {
    Tensor y(DType::F32, shape);
    apply(wide.data<float>(), y.mutable_data<float>(), e, last, channels_of<float>(s, gain, bias, options.epsilon));
    return context.set(0, cast(y, dtype), layout);
  }
  Tensor& y = context.out_reusing(0, 0, dtype, shape, layout);
  if (dtype == DType::F32) apply(reinterpret_cast<const float*>(x), y.mutable_data<float>(), e, last, channels_of<float>(s, gain, bias, options.epsilon));
  else apply(reinterpret_cast<const double*>(x), y.mutable_data<double>(), e, last, channels_of<double>(s, gain, bias, options.epsilon));
}

std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  if (spec.opset < 9 && spec.node.i("spatial", 1) == 0) throw Error(ErrorKind::Unsupported, "BatchNormalization with spatial = 0 (statistics for each pixel)");
  if (spec.opset < 7 && spec.node.i("is_test", 0) == 0) throw Error(ErrorKind::Unsupported, "BatchNormalization in training mode, before opset 7");
  const Options options{spec.node.f("epsilon", 1e-5f), spec.node.f("momentum", 0.9f), spec.opset >= 14 && spec.node.i("training_mode", 0) != 0};
  return make_kernel([options](KernelContext& context) { run(context, options); });
}

}  // namespace

std::vector<OpDef> op_batch_normalization() { return {{.name = "BatchNormalization", .since = 6, .cpu = make}}; }

}  // namespace infopt
