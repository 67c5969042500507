// Activation-aware scaling (AWQ, Lin et al., arXiv 2306.00978): where the inputs of products have channels that matter more, their weights are
// multiplied by s ≥ and the inputs divided, so that those weights are rounded less. W' = W·diag(s), x' = x / s: the same function.
#pragma once
#include <vector>

#include "lib/ir/edit.h"
#include "passes/support/input_moments.h"
#include "passes/support/weight_grid.h"

namespace infopt {

/// A product's weights, W[out][k], and the format that they will be rounded to.
struct ScaledProduct {
  std::vector<float> weights;
  int64_t out = 0;
  WeightFormat format;
};

struct ChannelScales {
  std::vector<float> s;  ///< empty where none gains
  double gain = 1;       ///< what is left of the error, summed over the products, each relative to its output's energy
};

/// Searches s = rms(x)^α / max|W|^β over α in (0, 1] and β in {0, 1 − α} for the products that share an input, whose moments are h (k×k): least
/// Σ‖(Ŵ' diag(1/s) − W)·x‖² / ‖W·x‖² with weights rounded to nearest on grids of the least squares. Looks at no more than 128 rows of each.
ChannelScales search_channel_scales(const std::vector<ScaledProduct>& products, const std::vector<float>& h, GridFit fit, int threads);

/// Divides a value's last axis by s in what makes it: a normalization's gain and bias, a product's output channels, a Mul or an Add with a
/// constant. False, and nothing is changed, where that can't be done exactly, or others than `readers` read the value.
bool divide_channels(GraphEdit& edit, ValueId value, const std::vector<float>& s, const std::vector<NodeId>& readers);

}  // namespace infopt
