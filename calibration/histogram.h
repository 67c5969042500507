// Histograms that can be filled in any order and merged: 4,096 bins over ± a power of two, doubled by merging pairs of bins.
#pragma once
#include <cstdint>
#include <vector>

#include "lib/runtime/summary.h"

namespace infopt {

class Histogram {
 public:
  static constexpr int64_t kBins = kSummaryBins;

  /// Adds finite values. `extent` is at least the largest magnitude among them.
  void add(const float* values, int64_t count, float extent);
  void merge(const Histogram& other);
  bool empty() const { return counts_.empty(); }
  int64_t total() const;
  /// Bin i holds the values in [lower(i), lower(i) + width()).
  double width() const;
  double lower(int64_t i) const { return static_cast<double>(i - kBins / 2) * width(); }
  const std::vector<int64_t>& counts() const { return counts_; }
  /// The range is ±2^exponent.
  int exponent() const { return exponent_; }
  static Histogram from(int exponent, std::vector<int64_t> counts);

 private:
  void grow(int exponent);
  int exponent_ = 0;
  std::vector<int64_t> counts_;  ///< empty, or kBins
};

}  // namespace infopt
