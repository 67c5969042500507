// Means and covariances of the channels of values, over the calibration data.
#pragma once
#include <map>
#include <vector>

#include "passes/pass.h"

namespace infopt {

/// Of the channels along one axis of a value: E[xxᵀ] − E[x]E[x]ᵀ, E[x] and E[x²], over all places of all samples, thinned out evenly.
struct ChannelMoments {
  int64_t channels = 0, places = 0;
  std::vector<float> covariance;  ///< channels × channels; the diagonal alone, as one row, where there are too many channels
  std::vector<double> mean, square;
  bool full() const { return static_cast<int64_t>(covariance.size()) == channels * channels; }
};

struct ChannelAxis {
  ValueId value = kNone;
  int64_t axis = 1;
  auto operator<=>(const ChannelAxis&) const = default;
};

/// In one run over the data. `samples`: at most so many, 0 for all. Throws Error(Malformed) naming the value where it holds a NaN or an infinity.
/// `live`: places that count; null: all.
std::map<ChannelAxis, ChannelMoments> collect_channel_moments(const Graph& graph, const std::vector<ChannelAxis>& wanted, PassContext& context, int64_t samples, const class LivePlaces* live = nullptr);

/// Rows of a value, [places][channels], at most `most` of them, evenly spread over those that count.
std::vector<float> channel_rows(const Tensor& t, int64_t axis, int64_t most, const std::vector<bool>* live = nullptr);

}  // namespace infopt
