// Takes outlier channels out of a product's input, so that one range for the whole tensor loses less: x' = x / s, W' = s · W.
#pragma once
#include <vector>

#include "calibration/statistics.h"

namespace infopt {

/// A product's noise over its signal, both of the whole output: activations quantized to 8 bits over [low, high], weights per
/// output channel. Sums over the input channel k and output channel n:
/// NSR = [ (Δx²/12)·ΣW² + (1/12)·Σn δn²·Σk E[xk²] ] / E‖xW‖²,  Δx = (high−low)/255,  δn = max_k|W_kn| / 127.
class ProductNoise {
 public:
  /// `weights` is W[out][in] and must outlive this; `signal` is E‖xW‖² of one row.
  ProductNoise(const std::vector<float>& weights, size_t out, size_t in, double signal);
  /// `s` divides the input's channels and multiplies the weights' rows, each at least 1; empty for none. 0 where the signal isn't known.
  double nsr(const TensorStatistics& x, const std::vector<double>& s) const;

 private:
  const std::vector<float>& weights_;
  size_t out_, in_;
  double signal_;
  std::vector<double> energy_;   ///< ΣW² by input channel
  std::vector<float> largest_;   ///< max|W| by output channel
};

/// The factors s ≥ 1 for the products that share x: every channel whose largest magnitude is above τ is brought down to τ,
/// τ from the set max·2^(−j/2), the one with the least sum of noise. Empty where there is little noise (30 dB), or
/// none gains 3 dB.
std::vector<double> equalizing_factors(const TensorStatistics& x, const std::vector<ProductNoise>& products);

}  // namespace infopt
