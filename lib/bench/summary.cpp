#include "lib/bench/summary.h"

#include <algorithm>
#include <numeric>

namespace infopt {

double percentile(const std::vector<double>& sorted, int percent) {
  const auto count = static_cast<int64_t>(sorted.size());
  const int64_t rank = (percent * count + 99) / 100;  // in integers: 0.07 · 100 isn't 7 in floating point
  return sorted[static_cast<size_t>(std::clamp<int64_t>(rank, 1, count) - 1)];
}

Summary summarize(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  Summary s;
  s.count = static_cast<int64_t>(values.size());
  s.mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  s.min = values.front();
  s.median = percentile(values, 50);
  s.p90 = percentile(values, 90);
  s.p99 = percentile(values, 99);
  s.max = values.back();
  return s;
}

}  // namespace infopt
