// What calibration keeps of a tensor: never its elements. Everything merges, and gives the same bits however the samples
// were split: extremes and counts are order-free, sums are taken per sample and added in the order of the samples.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "calibration/histogram.h"
#include "lib/base/tensor.h"
#include "lib/ir/graph.h"
#include "lib/ops/op.h"

namespace infopt {

struct TensorStatistics {
  int64_t samples = 0, elements = 0;
  float min = 0, max = 0;
  /// Along the axis that a product sums over (a convolution's channels, a product's last axis); empty where there is none.
  std::vector<float> channel_min, channel_max;
  std::vector<double> channel_sum, channel_square;  ///< Σx, Σx²
  Histogram histogram;

  double mean(size_t channel) const { return channel_sum[channel] / per_channel(); }
  double square(size_t channel) const { return channel_square[channel] / per_channel(); }
  /// Elements behind each channel's sums.
  double per_channel() const { return static_cast<double>(elements) / static_cast<double>(std::max<size_t>(1, channel_sum.size())); }
  void merge(const TensorStatistics& later);
};

struct CollectRequest {
  ValueId value = kNone;
  int64_t channel_axis = 1;  ///< negative counts from the end
};

/// The statistics of one tensor of one sample. Throws Error(Malformed) where an element is NaN or infinite.
TensorStatistics collect(const Tensor& tensor, Layout layout, int64_t channel_axis);

/// The same of what a device said of the tensor. Throws as collect(); the request had a histogram.
TensorStatistics statistics_of(const TensorSummary& summary);

/// Statistics by value, with what they were taken from.
struct StatisticsSet {
  std::string model_key, data_key;
  int64_t samples = 0;
  std::map<ValueId, TensorStatistics> tensors;
};

/// A versioned binary form (CBOR). Reading throws Error(Malformed) where it is damaged or of another version.
std::string serialize(const StatisticsSet& set);
StatisticsSet parse_statistics(const std::string& bytes, const std::string& where);

}  // namespace infopt
