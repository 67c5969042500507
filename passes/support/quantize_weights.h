// Symmetric int8 weights with a scale for each output channel.
#pragma once
#include <vector>

#include "passes/support/layers.h"

namespace infopt {

struct QuantizedWeights {
  std::vector<int8_t> codes;   ///< W[out][in][tap], in [-127, 127]
  std::vector<float> scales;   ///< one for each output channel, or one in all
  double signal = 0, noise = 0;  ///< Σw², Σ(ŵ−w)², for the SQNR of the weights alone
};

/// Scale = max|w| / 127 of each channel (1 where it is all zero), codes rounded half to even; then, within each kernel of more
/// than one tap, the codes whose rounding went furthest are moved by one step until the sum over the taps is kept to half a
/// step: an input that changes little from tap to tap then sees no error. Weights that are 0 stay 0.
/// Throws Error(Malformed) where a weight is NaN or infinite.
QuantizedWeights quantize_weights(const Layer& layer, const std::vector<float>& weights, bool per_channel);

/// What the layer's output changes by on average: Σ (ŵ−w)·E[x] for each output channel. `means` are of the input channels, all groups.
std::vector<double> output_shift(const Layer& layer, const std::vector<float>& weights, const QuantizedWeights& quantized, const std::vector<double>& means);
/// Mean over the output channels of Σ (ŵ−w)²·E[x²]: the noise that the weights put on an output, inputs taken as uncorrelated.
double weight_noise(const Layer& layer, const std::vector<float>& weights, const QuantizedWeights& quantized, const std::vector<double>& squares);

}  // namespace infopt
