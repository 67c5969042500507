// Empirical bias correction (Nagel et al., arXiv 1906.04721, section 4.2): what mean error is left at a layer's output comes out of its bias.
#pragma once
#include <vector>

#include "calibration/calibration.h"
#include "lib/ir/edit.h"

namespace infopt {

/// For each of `layers` that is coded (coded_layers.h) and has a bias of its own in the edited graph: takes the mean difference from the same
/// node's output in `original`, by output channel over the calibration samples, out of the bias. Layer after layer, each with the corrected ones
/// before it. A channel's mean m with standard error e over the samples counts max(0, 1 − (e/m)²): what may be chance stays. Returns how many
/// layers were changed; 0 where there are fewer than two samples.
int64_t correct_biases(GraphEdit& edit, const Graph& original, const std::vector<NodeId>& layers, Calibration& calibration, int threads);

}  // namespace infopt
