#include "passes/support/site_causes.h"

#include <algorithm>
#include <cmath>

#include "calibration/observer.h"
#include "lib/report/format.h"

namespace infopt {
namespace {

constexpr double kOutlierChannel = 8;   // times the median channel's reach
constexpr double kRare = 2.5;           // times the percentile's range
constexpr double kOutlierWeight = 20;   // times its channel's root mean square
constexpr double kUneven = 64;          // the largest channel's scale over the median's

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

std::string number(double v) { return format::number(v); }

void add_channels(const TensorStatistics& s, std::vector<std::string>& causes) {
  const size_t n = s.channel_min.size();
  if (n < 4) return;
  std::vector<double> reach(n);
  size_t dead = 0, most = 0;
  for (size_t c = 0; c < n; ++c) {
    reach[c] = std::max(std::fabs(static_cast<double>(s.channel_min[c])), std::fabs(static_cast<double>(s.channel_max[c])));
    if (reach[c] == 0) ++dead;
    if (reach[c] > reach[most]) most = c;
  }
  const double middle = median(reach);
  if (middle > 0 && reach[most] > kOutlierChannel * middle)
    causes.push_back("outlier channel: channel " + std::to_string(most) + " reaches " + number(reach[most]) + ", the median channel " + number(middle) + "; quantize_int8's equalize moves it into the weights, else keep these activations in float");
  if (dead > 0) causes.push_back("dead channels: " + std::to_string(dead) + " of " + std::to_string(n) + " are zero in every sample");
}

}  // namespace

std::vector<std::string> causes_of(const TensorStatistics& s, double percentile) {
  std::vector<std::string> causes;
  add_channels(s, causes);
  if (s.histogram.empty()) return causes;
  ObserverOptions o;
  o.percentile = percentile;
  const Range inner = find_observer("percentile").range(s, o);
  const double whole = static_cast<double>(s.max) - static_cast<double>(s.min), narrow = inner.high - inner.low;
  if (narrow > 0 && whole > kRare * narrow)
    causes.push_back("rare outliers: " + number(percentile) + " % of the values lie within [" + number(inner.low) + ", " + number(inner.high) + "], the extremes are [" + number(static_cast<double>(s.min)) + ", " +
                     number(static_cast<double>(s.max)) + "]; calibrate.method: mse or percentile clips them");
  if (!s.channel_square.empty() && whole > 0) {
    double square = 0;
    for (double q : s.channel_square) square += q;
    const double rms = std::sqrt(square / static_cast<double>(s.elements)), steps = rms / (whole / 255);
    if (steps < 2) causes.push_back("narrow values in a wide range: their root mean square is " + number(steps) + " steps of 8 bits; 16-bit or float activations, or a clipped range, keep them");
  }
  return causes;
}

std::vector<std::string> causes_of(const Graph& graph, const Layer& layer, const std::vector<float>& weights, const TensorStatistics* input, const Profile& profile) {
  std::vector<std::string> causes;
  const auto per = static_cast<size_t>(layer.in * layer.taps);
  std::vector<double> largest;
  size_t dead = 0, worst = 0;
  double ratio = 0;
  for (size_t o = 0; o < static_cast<size_t>(layer.out); ++o) {
    double top = 0, square = 0;
    for (size_t i = 0; i < per; ++i) {
      const double w = static_cast<double>(weights[o * per + i]);
      top = std::max(top, std::fabs(w));
      square += w * w;
    }
    largest.push_back(top);
    if (top == 0) {
      ++dead;
      continue;
    }
    const double r = top / std::sqrt(square / static_cast<double>(per));
    if (r > ratio) ratio = r, worst = o;
  }
  if (ratio > kOutlierWeight)
    causes.push_back("outlier weight: in output channel " + std::to_string(worst) + " the largest is " + number(ratio) + " times the root mean square; blocks (quantize_weights.block_size), or a scale of least squares, lose less");
  if (dead > 0) causes.push_back("dead channels: the weights of " + std::to_string(dead) + " of " + std::to_string(layer.out) + " output channels are all zero");
  const double middle = median(largest), most = *std::max_element(largest.begin(), largest.end());
  if (middle > 0 && most > kUneven * middle && !profile.weights_per_channel)
    causes.push_back("uneven channels: the largest output channel has " + number(most / middle) + " times the median's weights, and the target takes one scale for all");
  const Node& n = graph.node(layer.node);
  const Tensor* bias = graph.constant(n.input(2));
  if (!input || !bias || !is_float(bias->dtype()) || bias->size() != layer.out) return causes;
  const double scale = static_cast<double>(quantization_of({static_cast<double>(input->min), static_cast<double>(input->max)}, profile.activations_signed, profile.activations_symmetric).scale);
  const std::vector<double> values = to_vector<double>(*bias);
  size_t over = 0;
  for (size_t o = 0; o < values.size(); ++o)
    if (largest[o] > 0 && std::fabs(values[o]) / (scale * largest[o] / 127) > 1 << 30) ++over;
  if (over > 0) causes.push_back("bias overflow: " + std::to_string(over) + " biases don't fit 32 bits at input scale times weight scale; their channels' weight scales are widened");
  return causes;
}

}  // namespace infopt
