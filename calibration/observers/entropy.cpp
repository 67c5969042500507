// The threshold at which the clipped distribution and its quantized form are closest in Kullback-Leibler divergence
// (Migacz, "8-bit Inference with TensorRT", 2017), over the histogram of magnitudes.
#include <algorithm>
#include <cmath>

#include "calibration/observer.h"

namespace infopt {
namespace {

/// D(P‖Q) of the first `bins` bins, what lies beyond counted to the last, against its form in `levels` equal parts.
double divergence(const std::vector<double>& magnitudes, const std::vector<double>& below, size_t bins, size_t levels) {
  const double total = below.back();
  const double beyond = total - below[bins];
  size_t last = bins;  // what is clipped joins the last bin that holds anything
  while (last > 1 && magnitudes[last - 1] <= 0) --last;
  double kl = 0;
  for (size_t level = 0; level < levels; ++level) {
    const size_t from = level * bins / levels, until = (level + 1) * bins / levels;
    double sum = below[until] - below[from];
    size_t filled = 0;
    for (size_t i = from; i < until; ++i) filled += magnitudes[i] > 0;
    if (filled == 0) continue;
    const double q = sum / static_cast<double>(filled) / below[bins];
    for (size_t i = from; i < until; ++i) {
      if (magnitudes[i] <= 0) continue;
      const double p = (magnitudes[i] + (i + 1 == last ? beyond : 0)) / total;
      kl += p * std::log(p / q);
    }
  }
  return kl;
}

Range range(const TensorStatistics& s, const ObserverOptions& options) {
  if (s.histogram.empty()) return {s.min, s.max};
  constexpr size_t kHalf = static_cast<size_t>(Histogram::kBins / 2);
  std::vector<double> magnitudes(kHalf, 0), below(kHalf + 1, 0);
  size_t used = 0;
  for (size_t i = 0; i < kHalf; ++i) {
    magnitudes[i] = static_cast<double>(s.histogram.counts()[kHalf + i] + s.histogram.counts()[kHalf - 1 - i]);
    below[i + 1] = below[i] + magnitudes[i];
    if (magnitudes[i] > 0) used = i + 1;
  }
  // A Relu's zeros are exact whatever the range: counted, they would ask for the finest steps and clip all else.
  magnitudes[0] = std::min(magnitudes[0], magnitudes[1]);
  for (size_t i = 0; i < kHalf; ++i) below[i + 1] = below[i] + magnitudes[i];
  const bool one_sided = s.min >= 0 || s.max <= 0;
  const size_t levels = static_cast<size_t>(options.levels) / (one_sided ? 1 : 2);
  if (used <= levels) return {s.min, s.max};
  size_t best = used;
  double least = divergence(magnitudes, below, used, levels);
  const size_t step = std::max<size_t>(1, levels / 8);
  for (size_t bins = levels; bins < used; bins += step) {
    if (below[bins] <= 0) continue;
    const double d = divergence(magnitudes, below, bins, levels);
    if (d < least) {
      least = d;
      best = bins;
    }
  }
  const double threshold = static_cast<double>(best) * s.histogram.width();
  return {std::max<double>(s.min, -threshold), std::min<double>(s.max, threshold)};
}

}  // namespace

ObserverDef observer_entropy() { return {"entropy", "the threshold of least Kullback-Leibler divergence", range}; }

}  // namespace infopt
