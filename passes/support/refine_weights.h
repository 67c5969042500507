// What comes after write_int8: weights of fewer bits, and their rounding chosen anew.
#pragma once
#include "passes/support/plan_int8.h"

namespace infopt {

/// Makes 4-bit codes (int4, symmetric, scales of least squares) of the int8 weights of every layer that has them behind a DequantizeLinear, and
/// adapts the biases. What keeps 8 bits says so in its report. `original` is the graph that `plan` was made for.
void recode_weights(GraphEdit& edit, const Graph& original, Int8Plan& plan, PassContext& context, const Options& options);
/// Learns the rounding of the weights (reconstruct.h) on calibration samples, as many as fit into a fixed amount of memory.
void learn_rounding(GraphEdit& edit, const Graph& original, Int8Plan& plan, PassContext& context, const Options& options);

/// Gives a layer that recode_weights() changed its 8-bit codes and bias back, and says why in its report. False where there is nothing to give back.
bool widen_weights(GraphEdit& edit, const Graph& original, Int8Plan& plan, const LayerPlan& layer, const std::string& reason);

}  // namespace infopt
