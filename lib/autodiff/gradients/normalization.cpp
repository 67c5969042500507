// x̂ = (x − μ)·r over the axes from `axis` on, r = 1/√(σ² + ε); y = x̂·g + b. By x: r·(dx̂ − mean(dx̂) − x̂·mean(dx̂·x̂)) with dx̂ = dy·g; RMS
// normalization has no μ, and no mean(dx̂). BatchNormalization in inference is affine per channel.
#include <cmath>

#include "lib/autodiff/gradient.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

/// x̂ and 1/√(…) of one row.
float normalize(const float* x, float* normal, int64_t n, float epsilon, bool centred) {
  double mean = 0, square = 0;
  for (int64_t i = 0; i < n && centred; ++i) mean += static_cast<double>(x[i]);
  mean /= static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) square += (static_cast<double>(x[i]) - mean) * (static_cast<double>(x[i]) - mean);
  const double r = 1 / std::sqrt(square / static_cast<double>(n) + static_cast<double>(epsilon));
  for (int64_t i = 0; i < n; ++i) normal[i] = static_cast<float>((static_cast<double>(x[i]) - mean) * r);
  return static_cast<float>(r);
}

void by_input(const float* d, const float* normal, float* dx, int64_t n, float r, bool centred) {
  double mean = 0, along = 0;
  for (int64_t i = 0; i < n; ++i) {
    mean += static_cast<double>(d[i]);
    along += static_cast<double>(d[i]) * static_cast<double>(normal[i]);
  }
  const auto m = static_cast<float>(centred ? mean / static_cast<double>(n) : 0), a = static_cast<float>(along / static_cast<double>(n));
  for (int64_t i = 0; i < n; ++i) dx[i] = r * (d[i] - m - normal[i] * a);
}

template <bool centred> GradientFunction rows(const KernelSpec& spec) {
  const int64_t given = spec.node.i("axis", -1);
  const float epsilon = spec.node.f("epsilon", 1e-5f);
  return [given, epsilon](GradientContext& c) {
    const Tensor x = c.in(0), dy = c.dy();
    const int64_t n = product(x.shape(), static_cast<size_t>(normal_axis(given, x.rank())), x.shape().size());
    Tensor normal(DType::F32, x.shape()), scaled(DType::F32, x.shape()), dx(DType::F32, x.shape());
    const Tensor gain = broadcast_to(c.in(1), x.shape());
    const float *g = gain.data<float>(), *d = dy.data<float>();
    float* s = scaled.mutable_data<float>();
    for (int64_t i = 0; i < x.size(); ++i) s[i] = d[i] * g[i];
    for (int64_t at = 0; at < x.size(); at += n) {
      const float r = normalize(x.data<float>() + at, normal.mutable_data<float>() + at, n, epsilon, centred);
      by_input(s + at, normal.data<float>() + at, dx.mutable_data<float>() + at, n, r, centred);
    }
    if (c.wants(0)) c.give(0, dx);
    if (c.wants(1)) {
      for (int64_t i = 0; i < x.size(); ++i) s[i] = d[i] * normal.data<float>()[i];
      c.give(1, reduce_to(scaled, c.shape(1)));
    }
    if (c.wants(2)) c.give(2, reduce_to(dy, c.shape(2)));
  };
}

GradientFunction batch(const KernelSpec& spec) {
  const float epsilon = spec.node.f("epsilon", 1e-5f);
  if (spec.node.i("training_mode", 0) != 0) throw Error(ErrorKind::Unsupported, "BatchNormalization in training");
  return [epsilon](GradientContext& c) {
    const Tensor x = c.in(0), dy = c.dy(), gain = c.in(1), mean = c.in(3), variance = c.in(4);
    const int64_t channels = x.dim(1), inner = product(x.shape(), 2, x.shape().size());
    Tensor dx(DType::F32, x.shape()), dg = Tensor::zeros(DType::F32, {channels}), db = Tensor::zeros(DType::F32, {channels});
    for (int64_t o = 0; o < x.dim(0) * channels; ++o) {
      const int64_t ch = o % channels, at = o * inner;
      const float r = 1 / std::sqrt(variance.data<float>()[ch] + epsilon);
      double along = 0, sum = 0;
      for (int64_t i = at; i < at + inner; ++i) {
        const float d = dy.data<float>()[i];
        dx.mutable_data<float>()[i] = d * gain.data<float>()[ch] * r;
        along += static_cast<double>(d * (x.data<float>()[i] - mean.data<float>()[ch]) * r);
        sum += static_cast<double>(d);
      }
      dg.mutable_data<float>()[ch] += static_cast<float>(along);
      db.mutable_data<float>()[ch] += static_cast<float>(sum);
    }
    if (c.wants(3) || c.wants(4)) throw Error(ErrorKind::Unsupported, "gradients by BatchNormalization's mean and variance");
    if (c.wants(0)) c.give(0, dx);
    if (c.wants(1)) c.give(1, dg);
    if (c.wants(2)) c.give(2, db);
  };
}

/// Each channel of each sample by itself.
GradientFunction instance(const KernelSpec& spec) {
  const float epsilon = spec.node.f("epsilon", 1e-5f);
  return [epsilon](GradientContext& c) {
    const Tensor x = c.in(0), dy = c.dy(), gain = c.in(1);
    const int64_t channels = x.dim(1), inner = product(x.shape(), 2, x.shape().size());
    const double n = static_cast<double>(std::max<int64_t>(1, inner));
    Tensor dx(DType::F32, x.shape()), dg = Tensor::zeros(DType::F32, {channels}), db = Tensor::zeros(DType::F32, {channels});
    for (int64_t o = 0; o < x.dim(0) * channels; ++o) {
      const float *px = x.data<float>() + o * inner, *pd = dy.data<float>() + o * inner;
      double mean = 0, square = 0, sum = 0, along = 0;
      for (int64_t i = 0; i < inner; ++i) mean += static_cast<double>(px[i]) / n;
      for (int64_t i = 0; i < inner; ++i) square += (static_cast<double>(px[i]) - mean) * (static_cast<double>(px[i]) - mean) / n;
      const double r = 1 / std::sqrt(square + static_cast<double>(epsilon)), g = static_cast<double>(gain.data<float>()[o % channels]);
      for (int64_t i = 0; i < inner; ++i) sum += static_cast<double>(pd[i]), along += static_cast<double>(pd[i]) * (static_cast<double>(px[i]) - mean) * r;
      for (int64_t i = 0; i < inner; ++i) dx.mutable_data<float>()[o * inner + i] = static_cast<float>(g * r * (static_cast<double>(pd[i]) - sum / n - (static_cast<double>(px[i]) - mean) * r * along / n));
      dg.mutable_data<float>()[o % channels] += static_cast<float>(along);
      db.mutable_data<float>()[o % channels] += static_cast<float>(sum);
    }
    if (c.wants(0)) c.give(0, dx);
    if (c.wants(1)) c.give(1, dg);
    if (c.wants(2)) c.give(2, db);
  };
}

}  // namespace

std::vector<GradientDef> gradient_normalization() { return {{"LayerNormalization", rows<true>}, {"RMSNormalization", rows<false>}, {"BatchNormalization", batch}, {"InstanceNormalization", instance}}; }

}  // namespace infopt
