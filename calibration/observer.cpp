#include "calibration/observer.h"

#include <algorithm>
#include <cmath>

#include "lib/base/error.h"
#include "observer_table.h"  // generated

namespace infopt {

const std::vector<ObserverDef>& all_observers() {
  static const std::vector<ObserverDef> all = [] {
    std::vector<ObserverDef> out;
    for (const auto& make : observer_families()) out.push_back(make());
    return out;
  }();
  return all;
}

const ObserverDef& find_observer(const std::string& name) {
  std::string names;
  for (const ObserverDef& o : all_observers()) {
    if (o.name == name) return o;
    names += (names.empty() ? "" : ", ") + o.name;
  }
  throw Error(ErrorKind::Usage, "there is no calibration method '" + name + "'; there are " + names);
}

Quantization quantization_of(Range range, bool is_signed, bool symmetric, int bits) {
  const int32_t steps = (1 << bits) - 1;
  const double low = std::min(range.low, 0.0), high = std::max(range.high, 0.0);
  if (!(high - low > 0) || !std::isfinite(high - low)) return {1.0f, 0};
  if (symmetric) {
    const float scale = static_cast<float>(std::max(-low, high) / (is_signed ? steps / 2 : steps));
    return {scale > 0 ? scale : 1.0f, 0};
  }
  const float scale = static_cast<float>((high - low) / steps);
  if (!(scale > 0)) return {1.0f, 0};
  const int32_t least = is_signed ? -(steps / 2) - 1 : 0;
  const double zero = std::nearbyint(least - low / static_cast<double>(scale));
  return {scale, static_cast<int32_t>(std::clamp(zero, static_cast<double>(least), static_cast<double>(least + steps)))};
}

double histogram_mse(const Histogram& histogram, const Quantization& q, int low_code, int high_code) {
  double error = 0;
  int64_t total = 0;
  const double scale = static_cast<double>(q.scale);
  for (int64_t i = 0; i < Histogram::kBins; ++i) {
    const int64_t count = histogram.counts()[static_cast<size_t>(i)];
    if (count == 0) continue;
    const double centre = histogram.lower(i) + histogram.width() / 2;
    const double code = std::clamp(std::nearbyint(centre / scale) + q.zero_point, static_cast<double>(low_code), static_cast<double>(high_code));
    const double d = (code - q.zero_point) * scale - centre;
    error += static_cast<double>(count) * d * d;
    total += count;
  }
  return total ? error / static_cast<double>(total) : 0;
}

}  // namespace infopt
