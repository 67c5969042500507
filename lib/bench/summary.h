// What is said of many measured times.
#pragma once
#include <cstdint>
#include <vector>

namespace infopt {

/// Nearest rank: the least value that at least `percent` of the values don't exceed. `sorted` ascends and isn't empty;
/// percent is from 1 to 100. Of fewer than 100 values the 99th percentile is the largest.
double percentile(const std::vector<double>& sorted, int percent);

struct Summary {
  int64_t count = 0;
  double mean = 0, min = 0, median = 0, p90 = 0, p99 = 0, max = 0;
};
/// All zero where there are no values. The median is the 50th percentile.
Summary summarize(std::vector<double> values);

}  // namespace infopt
