#include "passes/support/soft_rounding.h"

#include <algorithm>
#include <cmath>

#include "lib/base/float_math.h"
#include "lib/base/simd.h"


namespace infopt {
namespace {

constexpr double kMemory = 0.95;  // of that running mean
constexpr float kOnCode = 1e-3f;  // a weight this near to a code, in steps, has it: zeros stay zeros
constexpr float kFixed = 20;      // V where h is 0 or 1 and its gradient 0
constexpr float kStretch = 1.2f, kShift = 0.1f;

INFOPT_INLINE float unclipped(float v) { return kStretch * sigmoid_f(v) - kShift; }

INFOPT_SIMD void soften(const float* floor, const float* v, const float* zero, const float* scale, float* w, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float h = unclipped(v[i]);
    h = h < 0 ? 0 : h;
    h = h > 1 ? 1 : h;
    w[i] = (floor[i] + h - zero[i]) * scale[i];
  }
}

/// Σ (g·s)², in eight lanes.
INFOPT_SIMD double square_of(const float* g, const float* scale, int64_t n) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t l = 0; l < 8; ++l) lanes[l] += static_cast<double>(g[i + l] * scale[i + l]) * static_cast<double>(g[i + l] * scale[i + l]);
  for (; i < n; ++i) lanes[i % 8] += static_cast<double>(g[i] * scale[i]) * static_cast<double>(g[i] * scale[i]);
  double sum = 0;
  for (double l : lanes) sum += l;
  return sum;
}

/// The gradient by V of the loss and of pull·Σ(1 − |2h − 1|^β).
INFOPT_SIMD void to_v(const float* v, const float* by_weights, const float* scale, float* to, int64_t n, float pull, float beta) {
  for (int64_t i = 0; i < n; ++i) {
    const float h = unclipped(v[i]), from_half = 2 * h - 1, apart = std::fabs(from_half);
    const float slope = pull * 2 * beta * exp_f((beta - 1) * log_f(apart > 1e-6f ? apart : 1e-6f));
    const float by_h = by_weights[i] * scale[i] - (from_half > 0 ? slope : -slope);
    const float s = (h + kShift) / kStretch;
    to[i] = h > 0 && h < 1 ? by_h * kStretch * s * (1 - s) : 0.0f;
  }
}

}  // namespace

SoftRounding::SoftRounding(const std::vector<float>& weights, CodeGrid grid) : grid_(std::move(grid)), adam_(weights.size()) {
  for (size_t i = 0; i < weights.size(); ++i) {
    const float place = std::clamp(weights[i] / grid_.scales[i] + grid_.zeros[i], static_cast<float>(grid_.low), static_cast<float>(grid_.high));
    const float floor = std::min(std::floor(place), static_cast<float>(grid_.high - 1)), rest = place - floor;
    floor_.push_back(floor);
    nearest_.push_back(static_cast<int32_t>(std::nearbyint(place)));
    const bool fixed = rest < kOnCode || rest > 1 - kOnCode;
    v_.push_back(fixed ? (rest > 0.5f ? kFixed : -kFixed) : -std::log(kStretch / (rest + kShift) - 1));
  }
  gradient_.resize(weights.size());
}

Tensor SoftRounding::soft() const {
  Tensor t(DType::F32, grid_.shape);
  float* w = t.mutable_data<float>();
  soften(floor_.data(), v_.data(), grid_.zeros.data(), grid_.scales.data(), w, t.size());
  return t;
}

std::vector<int32_t> SoftRounding::codes() const {
  std::vector<int32_t> out(v_.size());
  for (size_t i = 0; i < v_.size(); ++i) out[i] = static_cast<int32_t>(floor_[i]) + (v_[i] >= 0 ? 1 : 0);
  return out;
}

Tensor SoftRounding::hard() const { return decode(codes()); }

std::vector<int32_t> SoftRounding::nearest() const { return nearest_; }

Tensor SoftRounding::decode(const std::vector<int32_t>& codes) const {
  Tensor t(DType::F32, grid_.shape);
  for (size_t i = 0; i < codes.size(); ++i) t.mutable_data<float>()[i] = (static_cast<float>(codes[i]) - grid_.zeros[i]) * grid_.scales[i];
  return t;
}

void SoftRounding::step(const float* by_weights, float pull, float beta, float rate) {
  const auto n = static_cast<int64_t>(v_.size());
  square_ = kMemory * square_ + (1 - kMemory) * square_of(by_weights, grid_.scales.data(), n) / static_cast<double>(n);
  weight_ = kMemory * weight_ + (1 - kMemory);
  pull *= static_cast<float>(std::sqrt(square_ / weight_));

  to_v(v_.data(), by_weights, grid_.scales.data(), gradient_.data(), n, pull, beta);
  adam_.step(v_.data(), gradient_.data(), rate);
}

}  // namespace infopt
