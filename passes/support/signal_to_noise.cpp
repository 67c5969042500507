#include "passes/support/signal_to_noise.h"

#include <algorithm>
#include <cmath>

namespace infopt {

void NoiseSums::add(const Tensor& reference, const Tensor& other) {
  if (reference.shape() != other.shape()) return;
  const Tensor a = cast(reference, DType::F32), b = cast(other, DType::F32);
  const float* x = a.data<float>();
  const float* y = b.data<float>();
  for (int64_t i = 0; i < a.size(); ++i) {
    const double v = static_cast<double>(x[i]), d = x[i] == y[i] ? 0 : static_cast<double>(y[i]) - v;
    if (!std::isfinite(v) && d == 0) continue;
    signal += v * v;
    noise += d * d;
  }
}

void NoiseSums::add(const NoiseSums& later) {
  signal += later.signal;
  noise += later.noise;
}

std::optional<double> NoiseSums::decibels() const {
  const auto r = ratio();
  if (!r) return std::nullopt;
  return std::isfinite(*r) ? -10 * std::log10(std::max(*r, 1e-30)) : -300.0;
}

std::optional<double> sqnr_db(double signal, double noise) {
  if (signal <= 0 || noise <= 0) return std::nullopt;
  return 10 * std::log10(signal / noise);
}

std::optional<double> sqnr_db(const std::vector<float>& reference, const std::vector<float>& values) {
  double signal = 0, noise = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double w = static_cast<double>(reference[i]), d = static_cast<double>(values[i]) - w;
    signal += w * w;
    noise += d * d;
  }
  return sqnr_db(signal, noise);
}

}  // namespace infopt
