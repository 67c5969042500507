// Why a place is hard to quantize, in words with numbers.
#pragma once
#include <string>
#include <vector>

#include "calibration/statistics.h"
#include "passes/profile.h"
#include "passes/support/layers.h"

namespace infopt {

/// Of a value that layers read: outlier channels, rare outliers (a range of `percentile` of the values is far narrower), dead channels, a range of which most
/// values use few codes, and how each is mended.
std::vector<std::string> causes_of(const TensorStatistics& statistics, double percentile);
/// Of a layer's weights, W[out][in][tap]: outlier weights, channels of zeros, channels whose sizes differ much (one scale for all would hurt),
/// biases that leave int32 no room. `input` may be null.
std::vector<std::string> causes_of(const Graph& graph, const Layer& layer, const std::vector<float>& weights, const TensorStatistics* input, const Profile& profile);

}  // namespace infopt
