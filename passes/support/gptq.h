// Rounds weights so that the layer's output changes least: GPTQ (Frantar et al., arXiv 2210.17323), then descent over the codes and scales of
// one block at a time (as QuantEase, arXiv 2309.01885, does over single codes).
//
// With e = w − ŵ a row's error is eᵀHe. Let H = L·Lᵀ; the error is Σu L²uu·(eu + Σv>u Lvu/Luu·ev)²: each column, from the last to the first,
// is rounded where the errors of those already rounded have moved its target (Babai's nearest plane, which GPTQ is). A block's scales are
// searched when it is reached, by what they leave of that sum.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "passes/support/weight_grid.h"

namespace infopt {

struct GptqOptions {
  bool act_order = true;  ///< blocks, and columns within a block, with most energy first
  double damp = 0.05;     ///< added to H's diagonal, as a share of its mean
  GridFit fit = GridFit::LeastSquares;  ///< Extremes: scales are those of a block's largest weights, and stay
  int sweeps = 12;        ///< of the descent, at most; 0 for GPTQ alone
  bool nearest = false;   ///< codes are the nearest ones: only scales and zero points are searched, as AWQ searches what to clip
  std::vector<uint8_t> keep;  ///< W[out][k], 0 where a weight is to be exactly 0 and the others make up for it; empty: nowhere
  int threads = 1;
};

/// `weights` is W[out][k]; `h` is k×k, Σ xxᵀ of the layer's inputs, symmetric. The same bits for any number of threads.
/// Throws Error(Malformed) where a weight or H holds a NaN or an infinity.
CodedWeights gptq(const std::vector<float>& weights, int64_t out, const std::vector<float>& h, const WeightFormat& format, const GptqOptions& options = {});

/// `damp`, or more where H was seen at few places for its columns: what they have in common there by chance isn't to be rounded by.
inline double damp_for(double damp, int64_t columns, int64_t places) { return std::max(damp, 0.3 * static_cast<double>(columns) / static_cast<double>(std::max<int64_t>(1, places))); }

/// Σ over the rows of eᵀHe, in double.
double quadratic_error(const std::vector<float>& weights, const std::vector<float>& quantized, int64_t out, const std::vector<float>& h, int threads = 1);

}  // namespace infopt
