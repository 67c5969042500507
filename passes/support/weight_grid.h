// Which codes a layer's weights may take, and which weights share a scale: the grid that every rounding (to nearest, GPTQ,
// AdaRound) rounds to. Weights are seen as W[out][k], k = input channels of a group × taps.
#pragma once
#include <cstdint>
#include <vector>

#include "lib/base/dtype.h"

namespace infopt {

struct WeightFormat {
  DType dtype = DType::I8;  ///< I2, U2, I4, U4, I8, U8, F8E4M3FN or F8E5M2; floats are symmetric
  int64_t block = 0;        ///< weights along k that share a scale, the last block may be shorter; 0: all of an output channel's; -1: all of the layer's
  bool symmetric = true;    ///< zero point 0 where the type is signed, the middle code where it isn't
  bool signs = false;       ///< scales may be negative: the lowest code of a symmetric signed type, which has no counterpart, then serves either end
  bool two_signs() const { return signs && symmetric && !is_float(dtype) && dtype != DType::I8; }
};

/// What codes stand for before they are scaled: integers, or small floats.
struct CodeSpacing {
  int digits = 0;             ///< of a float's mantissa, the leading one not counted; 0: integers
  float least = 1;            ///< a float type's least normal number
  float nearest(float r) const;  ///< rounded half to even, not clamped
  static CodeSpacing of(DType dtype);
};

/// value = (code − zero)·scale; codes of floats are their bits, and what the bits stand for is scaled.
struct WeightGrid {
  WeightFormat format;
  int64_t out = 0, k = 0;
  int64_t block = 0, blocks = 1;  ///< along k; block = k where a channel has one scale
  int low = -127, high = 127;     ///< codes that are used; I8 leaves out −128. Of floats, their least and largest value
  std::vector<float> scales;      ///< [out][blocks], or one
  std::vector<int32_t> zeros;     ///< likewise

  size_t group(int64_t o, int64_t i) const { return scales.size() == 1 ? 0 : static_cast<size_t>(o * blocks + i / block); }
  float value(int32_t code, size_t g) const;
  int32_t nearest(float w, size_t g) const;  ///< rounded half to even, and clamped
};

struct CodedWeights {
  WeightGrid grid;
  std::vector<int16_t> codes;  ///< [out][k]
  std::vector<float> shift = {};  ///< by out: what the layer's bias takes up of the rounding; empty for nothing
};

enum class GridFit {
  Extremes,      ///< the largest magnitude, or both extremes, just fit
  LeastSquares,  ///< the least Σ importance·(ŵ−w)² of a search over narrower ranges
};

/// `importance`: one weight for each of k (mean squares of the inputs, say), or empty for 1. A group that is all zero has scale 1.
/// Throws Error(Malformed) where a weight is NaN or infinite.
WeightGrid fit_grid(const std::vector<float>& weights, int64_t out, int64_t k, const WeightFormat& format, GridFit fit, const std::vector<double>& importance = {});

CodedWeights round_to_nearest(const std::vector<float>& weights, WeightGrid grid);
std::vector<float> decode(const CodedWeights& weights);

/// Codes of a type: I4 −8 to 7, U2 0 to 3, …; I8 −127 to 127.
int lowest_code(DType dtype);
int highest_code(DType dtype);

}  // namespace infopt
