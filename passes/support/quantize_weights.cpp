#include "passes/support/quantize_weights.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "lib/base/error.h"
#include "lib/base/simd.h"

namespace infopt {
namespace {

constexpr size_t kLanes = 8;

/// steps = w / scale, codes = steps rounded half to even and clamped. Adding and taking away 1.5·2^23 rounds a float of that size.
INFOPT_SIMD void round_row(const float* w, double inverse, float* steps, int8_t* codes, size_t n) {
  constexpr float kMagic = 12582912.0f;
  for (size_t i = 0; i < n; ++i) {
    const float step = static_cast<float>(static_cast<double>(w[i]) * inverse);
    const float rounded = (step + kMagic) - kMagic;
    steps[i] = step;
    codes[i] = static_cast<int8_t>(rounded < -127.0f ? -127.0f : rounded > 127.0f ? 127.0f : rounded);
  }
}

/// Adds Σw² and Σ(ŵ−w)² of one channel, in fixed lanes.
INFOPT_SIMD void add_noise(const float* w, const int8_t* codes, float scale, size_t n, double& signal, double& noise) {
  double s[kLanes] = {}, e[kLanes] = {};
  size_t i = 0;
  for (; i < n; ++i) {
    const size_t l = i % kLanes;
    const double value = static_cast<double>(w[i]), d = static_cast<double>(codes[i]) * static_cast<double>(scale) - value;
    s[l] += value * value;
    e[l] += d * d;
  }
  for (size_t l = 0; l < kLanes; ++l) signal += s[l], noise += e[l];
}

/// Moves codes of one kernel by a step each, those that were rounded furthest first, until their sum is the rounded sum of the weights.
void keep_sum(const float* steps, int8_t* codes, size_t taps) {
  double residue = 0;
  for (size_t t = 0; t < taps; ++t) residue += static_cast<double>(steps[t]) - codes[t];
  const auto moves = static_cast<int64_t>(std::nearbyint(residue));
  const int sign = moves > 0 ? 1 : -1;
  for (int64_t m = 0; m < std::abs(moves); ++m) {
    size_t best = taps;
    float furthest = 0;
    for (size_t t = 0; t < taps; ++t) {
      const float distance = static_cast<float>(sign) * (steps[t] - codes[t]);
      if (steps[t] == 0 || std::abs(codes[t] + sign) > 127 || (best < taps && distance <= furthest)) continue;
      best = t;
      furthest = distance;
    }
    if (best == taps) return;
    codes[best] = static_cast<int8_t>(codes[best] + sign);
  }
}

/// The first of the input channels that an output channel reads, over all groups.
size_t channel_of(const Layer& layer, int64_t out) { return static_cast<size_t>(out / (layer.out / layer.groups) * layer.in); }

}  // namespace

QuantizedWeights quantize_weights(const Layer& layer, const std::vector<float>& weights, bool per_channel, const std::vector<double>& shares) {
  QuantizedWeights q;
  q.codes.resize(weights.size());
  const size_t per = static_cast<size_t>(layer.in * layer.taps), channels = static_cast<size_t>(layer.out), taps = static_cast<size_t>(layer.taps);
  std::vector<float> largest(channels, 0);
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!std::isfinite(weights[i])) throw Error(ErrorKind::Malformed, "its weights have a NaN or an infinity");
    largest[i / per] = std::max(largest[i / per], std::fabs(weights[i]));
  }
  if (!per_channel) largest = {*std::max_element(largest.begin(), largest.end())};
  for (float m : largest) {
    const float scale = m / 127.0f;
    q.scales.push_back(scale > 0 ? scale : 1.0f);
  }
  const bool keeps_sums = taps > 1 && std::all_of(shares.begin(), shares.end(), [](double s) { return s > 0.5; });
  std::vector<float> steps(per);
  for (size_t c = 0; c < channels; ++c) {
    const float scale = q.scales[per_channel ? c : 0];
    const float* w = weights.data() + c * per;
    int8_t* codes = q.codes.data() + c * per;
    round_row(w, 1.0 / static_cast<double>(scale), steps.data(), codes, per);
    for (size_t from = 0; keeps_sums && from < per; from += taps) keep_sum(steps.data() + from, codes + from, taps);
    add_noise(w, codes, scale, per, q.signal, q.noise);
  }
  return q;
}

std::vector<double> output_shift(const Layer& layer, const std::vector<float>& weights, const QuantizedWeights& quantized, const LayerInputs& inputs) {
  std::vector<double> shift;
  const auto taps = static_cast<size_t>(layer.taps);
  size_t index = 0;
  for (int64_t o = 0; o < layer.out; ++o) {
    const auto scale = static_cast<double>(quantized.scales.size() == 1 ? quantized.scales[0] : quantized.scales[static_cast<size_t>(o)]);
    const double* mean = inputs.means.data() + channel_of(layer, o);
    double sum = 0;
    for (int64_t i = 0; i < layer.in; ++i)
      for (size_t t = 0; t < taps; ++t, ++index) sum += (quantized.codes[index] * scale - static_cast<double>(weights[index])) * mean[i] * (inputs.shares.empty() ? 1 : inputs.shares[t]);
    shift.push_back(sum);
  }
  return shift;
}

}  // namespace infopt
