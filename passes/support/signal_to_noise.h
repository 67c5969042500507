// Signal to quantization noise: of outputs, and of weights.
#pragma once
#include <optional>
#include <vector>

#include "lib/base/tensor.h"

namespace infopt {

/// Sums over tensors and what they should have been. What isn't finite, and equal in both, doesn't count, nor do pairs of different shapes (outputs
/// whose length the values decide).
struct NoiseSums {
  double signal = 0, noise = 0;

  void add(const Tensor& reference, const Tensor& other);
  void add(const NoiseSums& later);
  /// Noise over signal; empty where there is no signal.
  std::optional<double> ratio() const { return signal > 0 ? std::optional(noise / signal) : std::nullopt; }
  /// 300 at most; -300 where the noise isn't finite; empty as ratio() is.
  std::optional<double> decibels() const;
};

/// 10·log₁₀(signal / noise); empty where either is 0.
std::optional<double> sqnr_db(double signal, double noise);
/// The same of values, and what they should have been: of one length.
std::optional<double> sqnr_db(const std::vector<float>& reference, const std::vector<float>& values);

}  // namespace infopt
