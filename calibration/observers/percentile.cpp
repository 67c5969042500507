// The range that holds the given share of the values; the tails are clipped, an equal share at each end.
#include <algorithm>

#include "calibration/observer.h"

namespace infopt {
namespace {

/// The value below which `share` of the histogram lies, read linearly within its bin.
double quantile(const Histogram& h, double share) {
  const double wanted = share * static_cast<double>(h.total());
  double below = 0;
  for (int64_t i = 0; i < Histogram::kBins; ++i) {
    const auto count = static_cast<double>(h.counts()[static_cast<size_t>(i)]);
    if (count > 0 && below + count >= wanted) return h.lower(i) + h.width() * std::clamp((wanted - below) / count, 0.0, 1.0);
    below += count;
  }
  return h.lower(Histogram::kBins);
}

Range range(const TensorStatistics& s, const ObserverOptions& options) {
  if (s.histogram.empty()) return {s.min, s.max};
  const double tail = (1 - options.percentile / 100) / 2;
  return {std::max<double>(s.min, quantile(s.histogram, tail)), std::min<double>(s.max, quantile(s.histogram, 1 - tail))};
}

}  // namespace

ObserverDef observer_percentile() { return {"percentile", "the range that holds a share of the values", range}; }

}  // namespace infopt
