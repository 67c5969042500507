// Rounding to a quantizer's codes and back, as one differentiable step.
#pragma once
#include <cstdint>

#include "lib/base/tensor.h"

namespace infopt {

/// ŷ = (clamp(round_half_even(x / scale) + zero, low, high) − zero)·scale.
struct FakeQuantizer {
  float scale = 1;
  int32_t zero = 0, low = 0, high = 255;
};

/// `seed` other than 0: elements that a coin spares are cut to the codes' range, which may stand for a Relu, but not rounded. The coins
/// hang on seed and place alone.
Tensor fake_quantize(const Tensor& x, const FakeQuantizer& q, uint64_t seed);
/// dy where x lay within the codes' range, 0 elsewhere.
Tensor fake_quantize_gradient(const Tensor& x, const Tensor& dy, const FakeQuantizer& q);

/// `rounded` with the elements that the coins spare taken from `whole`, which has the same shape.
Tensor spare(const Tensor& rounded, const Tensor& whole, uint64_t seed);

/// Bits that look random and are the same everywhere (splitmix64).
inline uint64_t mix_bits(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace infopt
