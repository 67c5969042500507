// The threshold at which the clipped distribution and its quantized form are closest in Kullback-Leibler divergence
// (Migacz, "8-bit Inference with TensorRT", 2017), over the histogram of magnitudes.
//
// A histogram of few values says little of the distribution: among bins of one value or none every threshold has a
// divergence by chance. So bins are joined until those that hold anything hold enough on average, and what chance alone is
// expected to add, (bins - levels) / 2n, is taken off (the mean of a likelihood ratio's chi-squared). Where the joined bins are no
// finer than the quantizer's levels, nothing speaks for clipping.
//
// Divergence doesn't see how far a value is clipped, and alone clips a smooth tail until the error is many times min-max's. So
// a threshold counts only if it adds no more noise than min-max's rounding does. An outlier, more than twice the threshold,
// counts there as twice the threshold: few of them may go, many may not.
#include <algorithm>
#include <cmath>

#include "calibration/observer.h"

namespace infopt {
namespace {

constexpr double kEnough = 32;  ///< values in a bin, for its share to be known to a fifth or so
constexpr size_t kCandidates = 128;

double x_log_x(double x) { return x > 0 ? x * std::log(x) : 0; }

/// Counts of magnitudes; and sums over the bins below each, so that a threshold costs its levels only.
struct Magnitudes {
  std::vector<double> counts, below, entropy, filled;
  std::vector<double> first, second;  ///< moments, bins taken at their centres
  double width = 0;

  size_t used() const { return counts.size(); }
  bool sparse() const { return below.back() < kEnough * filled.back(); }
  void sum();
  void join_pairs();
};

void Magnitudes::sum() {
  while (!counts.empty() && counts.back() <= 0) counts.pop_back();
  for (auto* sums : {&below, &entropy, &filled, &first, &second}) sums->assign(counts.size() + 1, 0);
  for (size_t i = 0; i < counts.size(); ++i) {
    below[i + 1] = below[i] + counts[i];
    entropy[i + 1] = entropy[i] + x_log_x(counts[i]);
    filled[i + 1] = filled[i] + (counts[i] > 0 ? 1 : 0);
    const double centre = (static_cast<double>(i) + 0.5) * width;
    first[i + 1] = first[i] + counts[i] * centre;
    second[i + 1] = second[i] + counts[i] * centre * centre;
  }
}

void Magnitudes::join_pairs() {
  for (size_t i = 0; i < counts.size(); i += 2) counts[i / 2] = counts[i] + (i + 1 < counts.size() ? counts[i + 1] : 0);
  counts.resize((counts.size() + 1) / 2);
  width *= 2;
  sum();
}

Magnitudes magnitudes_of(const Histogram& h) {
  constexpr size_t kHalf = static_cast<size_t>(Histogram::kBins / 2);
  Magnitudes m;
  m.width = h.width();
  for (size_t i = 0; i < kHalf; ++i) m.counts.push_back(static_cast<double>(h.counts()[kHalf + i] + h.counts()[kHalf - 1 - i]));
  // A Relu's zeros are exact whatever the range: counted, they would ask for the finest steps and clip all else.
  m.counts[0] = std::min(m.counts[0], m.counts[1]);
  m.sum();
  return m;
}

/// D(P‖Q) of the first `bins` bins, what lies beyond counted to the last that holds anything, against its form in `levels` equal parts.
double divergence(const Magnitudes& m, size_t bins, size_t levels) {
  const double total = m.below.back(), inside = m.below[bins], beyond = total - inside;
  size_t last = bins;
  while (m.counts[last - 1] <= 0) --last;
  const double edge = m.counts[last - 1];
  const double own = (m.entropy[bins] - x_log_x(edge) + x_log_x(edge + beyond)) / total - std::log(total);
  double cross = -std::log(inside), parts = 0;
  for (size_t level = 0; level < levels; ++level) {
    const size_t from = level * bins / levels, until = (level + 1) * bins / levels;
    const double sum = m.below[until] - m.below[from];
    if (sum <= 0) continue;
    ++parts;
    cross += (sum + (from < last && last <= until ? beyond : 0)) / total * std::log(sum / (m.filled[until] - m.filled[from]));
  }
  return own - cross - (m.filled[bins] - parts) / (2 * total);
}

/// Squared error of clipping at the end of `bins` bins, per value.
double clipping_error(const Magnitudes& m, size_t bins) {
  const double threshold = static_cast<double>(bins) * m.width, total = m.below.back();
  const size_t twice = std::min(2 * bins, m.used());
  const double tail = (m.second[twice] - m.second[bins]) - 2 * threshold * (m.first[twice] - m.first[bins]) + threshold * threshold * (m.below[twice] - m.below[bins]);
  return (tail + threshold * threshold * (total - m.below[twice])) / total;
}

Range range(const TensorStatistics& s, const ObserverOptions& options) {
  if (s.histogram.empty()) return {s.min, s.max};
  Magnitudes m = magnitudes_of(s.histogram);
  const double least_seen = std::max(0.0, -static_cast<double>(s.min)), most_seen = std::max(0.0, static_cast<double>(s.max));
  // A level's width: the range may be longer on one side of 0.
  auto step_at = [&](double threshold) {
    const double low = std::min(threshold, least_seen), high = std::min(threshold, most_seen);
    return (options.symmetric ? 2 * std::max(low, high) : low + high) / options.levels;
  };
  auto levels_at = [&](double threshold) { return static_cast<size_t>(std::max(1.0, threshold / step_at(threshold))); };
  while (m.used() > 1 && m.sparse()) m.join_pairs();
  const double whole = static_cast<double>(m.used()) * m.width;
  if (m.used() <= levels_at(whole)) return {s.min, s.max};
  size_t best = m.used();
  double least = divergence(m, best, levels_at(whole));
  const double noise = step_at(whole) * step_at(whole) / 12;
  const size_t stride = std::max<size_t>(1, m.used() / kCandidates);
  for (size_t bins = stride; bins < m.used(); bins += stride) {
    const double threshold = static_cast<double>(bins) * m.width, step = step_at(threshold);
    const size_t levels = levels_at(threshold);
    if (bins < levels || m.below[bins] <= 0 || clipping_error(m, bins) + step * step / 12 > noise) continue;
    const double d = divergence(m, bins, levels);
    if (d < least) {
      least = d;
      best = bins;
    }
  }
  if (best == m.used()) return {s.min, s.max};
  const double threshold = static_cast<double>(best) * m.width;
  return {std::max<double>(s.min, -threshold), std::min<double>(s.max, threshold)};
}

}  // namespace

ObserverDef observer_entropy() { return {"entropy", "the threshold of least Kullback-Leibler divergence", range}; }

}  // namespace infopt
