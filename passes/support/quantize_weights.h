// Symmetric int8 weights with a scale for each output channel.
#pragma once
#include <vector>

#include "passes/support/layer_inputs.h"

namespace infopt {

struct QuantizedWeights {
  std::vector<int8_t> codes;   ///< W[out][in][tap], in [-127, 127]
  std::vector<float> scales;   ///< one for each output channel, or one in all
  double signal = 0, noise = 0;  ///< Σw², Σ(ŵ−w)², for the SQNR of the weights alone
};

/// Scale = max|w| / 127 of each channel (1 where it is all zero), codes rounded half to even; then, within each kernel of more
/// than one tap, the codes whose rounding went furthest are moved by one step until the sum over the taps is kept to half a
/// step: an input that changes little from tap to tap then sees no error. Not where one of `shares` (see tap_shares) is a half or less: there
/// taps don't meet in one output. Weights that are 0 stay 0. Throws Error(Malformed) where a weight is NaN or infinite.
QuantizedWeights quantize_weights(const Layer& layer, const std::vector<float>& weights, bool per_channel, const std::vector<double>& shares = {});

/// What the layer's output changes by on average: Σ (ŵ−w)·share·E[x] for each output channel.
std::vector<double> output_shift(const Layer& layer, const std::vector<float>& weights, const QuantizedWeights& quantized, const LayerInputs& inputs);

}  // namespace infopt
