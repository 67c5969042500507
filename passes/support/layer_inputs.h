// What calibration says of a layer's inputs, and how often each tap of a convolution's kernel meets them rather than a pad.
#pragma once
#include <vector>

#include "passes/support/layers.h"

namespace infopt {

/// By input channel of all groups, and by tap. What isn't known is empty.
struct LayerInputs {
  std::vector<double> means;
  std::vector<double> shares;  ///< of tap_shares
};

/// By tap: the share of the output's places at which the tap reads an element of an input of shape `input`, [N,C,spatial…]. Of a transposed convolution
/// likewise: a stride of 2 leaves each output half of the taps along that axis. Empty (all of them are 1) for products and where the shape doesn't fit.
std::vector<double> tap_shares(const Graph& graph, const Layer& layer, const Shape& input);

/// `seen` and `statistics` are of the layer's input; the latter may be null, or not by the layer's channels. Channels are divided by `factors` unless it is empty.
LayerInputs inputs_of(const Graph& graph, const Layer& layer, const Observed& seen, const TensorStatistics* statistics, const std::vector<double>& factors = {});

}  // namespace infopt
