#include "lib/bench/knee.h"

#include <cmath>

namespace infopt {

double gain_per_doubling(const BatchPoint& a, const BatchPoint& b) {
  if (a.items_per_second <= 0) return 0;
  const double doublings = std::log2(static_cast<double>(b.batch) / static_cast<double>(a.batch));
  return std::pow(b.items_per_second / a.items_per_second, 1 / doublings) - 1;
}

std::optional<int64_t> find_knee(const std::vector<BatchPoint>& points, double least_gain) {
  if (points.size() < 2) return {};
  for (size_t i = 1; i < points.size(); ++i)
    if (gain_per_doubling(points[i - 1], points[i]) < least_gain) return points[i - 1].batch;
  return points.back().batch;
}

std::optional<int64_t> largest_within(const std::vector<BatchPoint>& points, double p99_ms) {
  std::optional<int64_t> best;
  for (const BatchPoint& p : points)
    if (p.p99_ms <= p99_ms && (!best || p.batch > *best)) best = p.batch;
  return best;
}

}  // namespace infopt
