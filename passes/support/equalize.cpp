#include "passes/support/equalize.h"

#include <algorithm>
#include <cmath>

namespace infopt {
namespace {

constexpr double kGoodEnough = 1e-3;   // 30 dB: the extra multiplication isn't worth it
constexpr double kWorthwhile = 0.5;    // at least 3 dB less noise

}  // namespace

ProductNoise::ProductNoise(const std::vector<float>& weights, size_t out, size_t in, double signal)
    : weights_(weights), out_(out), in_(in), signal_(signal), energy_(in, 0), largest_(out, 0) {
  for (size_t n = 0; n < out; ++n)
    for (size_t k = 0; k < in; ++k) {
      const float w = weights[n * in + k];
      energy_[k] += static_cast<double>(w) * static_cast<double>(w);
      largest_[n] = std::max(largest_[n], std::fabs(w));
    }
}

double ProductNoise::nsr(const TensorStatistics& x, const std::vector<double>& s) const {
  if (signal_ <= 0 || x.channel_max.size() != in_) return 0;
  double low = 0, high = 0, squares = 0, energy = 0, steps = 0;
  std::vector<size_t> scaled;
  for (size_t k = 0; k < in_; ++k) {
    const double by = s.empty() ? 1 : s[k];
    low = std::min(low, static_cast<double>(x.channel_min[k]) / by);
    high = std::max(high, static_cast<double>(x.channel_max[k]) / by);
    squares += x.square(k) / (by * by);
    energy += energy_[k] * by * by;
    if (by > 1) scaled.push_back(k);
  }
  for (size_t n = 0; n < out_; ++n) {
    double largest = static_cast<double>(largest_[n]);
    for (size_t k : scaled) largest = std::max(largest, std::fabs(static_cast<double>(weights_[n * in_ + k])) * s[k]);
    steps += largest * largest / (127.0 * 127.0);
  }
  const double step = (high - low) / 255;
  return (step * step / 12 * energy + steps * squares / 12) / signal_;
}

std::vector<double> equalizing_factors(const TensorStatistics& x, const std::vector<ProductNoise>& products) {
  const size_t channels = x.channel_max.size();
  std::vector<double> magnitude(channels);
  double largest = 0;
  for (size_t k = 0; k < channels; ++k) {
    magnitude[k] = std::max(static_cast<double>(x.channel_max[k]), -static_cast<double>(x.channel_min[k]));
    largest = std::max(largest, magnitude[k]);
  }
  auto total = [&](const std::vector<double>& s) {
    double sum = 0;
    for (const ProductNoise& p : products) sum += p.nsr(x, s);
    return sum;
  };
  std::vector<double> best;
  const double untouched = total({});
  if (untouched < kGoodEnough) return {};
  double least = untouched * kWorthwhile;
  for (int j = 1; j <= 12 && largest > 0; ++j) {
    const double tau = largest * std::pow(2.0, -0.5 * j);
    std::vector<double> s(channels);
    for (size_t k = 0; k < channels; ++k) s[k] = static_cast<double>(static_cast<float>(std::max(magnitude[k] / tau, 1.0)));
    const double noise = total(s);
    if (noise >= least) continue;
    least = noise;
    best = std::move(s);
  }
  return best;
}

}  // namespace infopt
