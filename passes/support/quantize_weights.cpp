#include "passes/support/quantize_weights.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/base/error.h"

namespace infopt {
namespace {

/// Moves codes of one kernel by a step each, those that were rounded furthest first, until their sum is the rounded sum of the weights.
void keep_sum(const double* steps, int8_t* codes, size_t taps, std::vector<size_t>& order) {
  double residue = 0;
  for (size_t t = 0; t < taps; ++t) residue += steps[t] - codes[t];
  int64_t moves = static_cast<int64_t>(std::nearbyint(residue));
  if (moves == 0) return;
  const int sign = moves > 0 ? 1 : -1;
  order.resize(taps);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return sign * (steps[a] - codes[a]) > sign * (steps[b] - codes[b]); });
  for (size_t i = 0; i < taps && moves != 0; ++i) {
    const int moved = codes[order[i]] + sign;
    if (moved < -127 || moved > 127) continue;
    codes[order[i]] = static_cast<int8_t>(moved);
    moves -= sign;
  }
}

double difference(const QuantizedWeights& q, const std::vector<float>& w, size_t index, size_t channel) {
  const double scale = static_cast<double>(q.scales.size() == 1 ? q.scales[0] : q.scales[channel]);
  return q.codes[index] * scale - static_cast<double>(w[index]);
}

/// Calls f(output channel, input channel over all groups, sum over the taps of g(difference)).
template <class G, class F> void each_pair(const Layer& l, const std::vector<float>& w, const QuantizedWeights& q, G g, F f) {
  size_t index = 0;
  for (int64_t o = 0; o < l.out; ++o) {
    const int64_t group = o / (l.out / l.groups);
    for (int64_t i = 0; i < l.in; ++i) {
      double sum = 0;
      for (int64_t t = 0; t < l.taps; ++t, ++index) sum += g(difference(q, w, index, static_cast<size_t>(o)));
      f(static_cast<size_t>(o), static_cast<size_t>(group * l.in + i), sum);
    }
  }
}

}  // namespace

QuantizedWeights quantize_weights(const Layer& layer, const std::vector<float>& weights, bool per_channel) {
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
  std::vector<double> steps(taps);
  std::vector<size_t> order;
  for (size_t from = 0; from < weights.size(); from += taps) {
    const size_t channel = from / per;
    const double scale = static_cast<double>(per_channel ? q.scales[channel] : q.scales[0]);
    for (size_t t = 0; t < taps; ++t) {
      steps[t] = static_cast<double>(weights[from + t]) / scale;
      q.codes[from + t] = static_cast<int8_t>(std::clamp(std::nearbyint(steps[t]), -127.0, 127.0));
    }
    if (taps > 1) keep_sum(steps.data(), q.codes.data() + from, taps, order);
    for (size_t t = 0; t < taps; ++t) {
      const double w = static_cast<double>(weights[from + t]), d = q.codes[from + t] * scale - w;
      q.signal += w * w;
      q.noise += d * d;
    }
  }
  return q;
}

std::vector<double> output_shift(const Layer& layer, const std::vector<float>& weights, const QuantizedWeights& quantized, const std::vector<double>& means) {
  std::vector<double> shift(static_cast<size_t>(layer.out), 0);
  each_pair(layer, weights, quantized, [](double d) { return d; }, [&](size_t o, size_t i, double sum) { shift[o] += sum * means[i]; });
  return shift;
}

double weight_noise(const Layer& layer, const std::vector<float>& weights, const QuantizedWeights& quantized, const std::vector<double>& squares) {
  double noise = 0;
  each_pair(layer, weights, quantized, [](double d) { return d * d; }, [&](size_t, size_t i, double sum) { noise += sum * squares[i]; });
  return noise / static_cast<double>(layer.out);
}

}  // namespace infopt
