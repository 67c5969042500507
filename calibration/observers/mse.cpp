// The range whose quantizer has the least mean squared error over the histogram: the extremes shrunk, both ends together
// first and then each alone.
#include <algorithm>

#include "calibration/observer.h"

namespace infopt {
namespace {

Range range(const TensorStatistics& s, const ObserverOptions& options) {
  if (s.histogram.empty()) return {s.min, s.max};
  const bool symmetric = options.symmetric;
  auto error = [&](const Range& r) {
    return histogram_mse(s.histogram, quantization_of(r, symmetric, symmetric), symmetric ? -127 : 0, symmetric ? 127 : 255);
  };
  Range best{s.min, s.max};
  double least = error(best);
  auto consider = [&](const Range& r) {
    const double e = error(r);
    if (e >= least * 0.999) return;  // a narrower range has to pay
    least = e;
    best = r;
  };
  for (int step = 1; step <= 40; ++step) {
    const double keep = 1 - 0.02 * step;
    consider({std::min<double>(s.min, 0) * keep, std::max<double>(s.max, 0) * keep});
  }
  for (int round = 0; round < 2; ++round) {
    const Range centre = best;
    for (double keep : {1.2, 1.1, 1.05, 0.95, 0.9, 0.8, 0.7}) {
      consider({std::max<double>(centre.low * keep, s.min), best.high});
      consider({best.low, std::min<double>(centre.high * keep, s.max)});
    }
  }
  return best;
}

}  // namespace

ObserverDef observer_mse() { return {"mse", "the range whose quantizer has the least mean squared error", range}; }

}  // namespace infopt
