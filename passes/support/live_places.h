// Which places of a model's values its outputs hang on: padding that a mask takes out is none.
#pragma once
#include <map>
#include <vector>

#include "lib/ir/graph.h"
#include "passes/support/channel_moments.h"
#include "passes/support/varied_samples.h"

namespace infopt {

/// By gradients: a place (all channels along an axis at one row and column) is dead where the outputs' derivative by every one of its channels is exactly
/// zero. Found for the data's own samples; what was made of one has the same places. Only models with an input of integers or booleans are looked at, and
/// only where all of them can be differentiated; else every place counts.
class LivePlaces {
 public:
  LivePlaces() = default;
  /// `data` must give what it holds out, and outlive this. Axes count from 0.
  LivePlaces(const Graph& graph, const std::vector<ChannelAxis>& wanted, VariedSamples& data, int threads);
  double dead_share() const { return places_ > 0 ? static_cast<double>(dead_) / static_cast<double>(places_) : 0; }
  /// Of the sample's places, in row-major order without the axis; null where all count.
  const std::vector<bool>* of(const ChannelAxis& value, int64_t sample) const;

 private:
  std::map<ChannelAxis, std::vector<std::vector<bool>>> live_;  ///< by sample of the data
  const VariedSamples* data_ = nullptr;
  int64_t dead_ = 0, places_ = 0;
};

/// `count` places, fewer where there aren't so many, evenly spread over those that live; `live` may be null.
std::vector<int64_t> spread_places(int64_t places, const std::vector<bool>* live, int64_t count);

}  // namespace infopt
