// Prunes weights so that the layer's output changes least: SparseGPT (Frantar, Alistarh, arXiv 2301.00774), then a least-squares fit of what
// stays.
//
// With e = w − ŵ a row's error is eᵀHe. Columns are passed once: a column's weights have been moved by the errors of those before it as far as
// the later ones can mend (gptq.h has the form: H = L·Lᵀ over the columns from the last to the first, a column's price is L²uu·w²). Which go is
// decided for kSparseBlock columns at a time, or for each group of N:M, by that price with the weights as they then are.
#pragma once
#include <vector>

#include "passes/support/prune_mask.h"

namespace infopt {

inline constexpr int64_t kSparseBlock = 128;

struct SparseGptOptions {
  PrunePattern pattern;
  double sparsity = 0.5;        ///< of the layer; an N:M pattern has its own
  double damp = 0.01;           ///< added to H's diagonal, as a share of its mean
  int refit_steps = 0;          ///< of the conjugate gradients that fit what stays, at most
  std::vector<int64_t> order;   ///< of the columns, see grouped_columns(); empty: as they are
  int threads = 1;
};

struct PrunedWeights {
  std::vector<float> weights;  ///< W[out][k], zeros where the mask is 0
  PruneMask mask;
};

/// `weights` is W[out][k]; `h` is k×k, Σ xxᵀ of the layer's inputs, symmetric. The same bits for any number of threads.
/// Throws Error(Malformed) where a weight or H holds a NaN or an infinity.
PrunedWeights sparsegpt(const std::vector<float>& weights, int64_t out, const std::vector<float>& h, const SparseGptOptions& options);

/// The weights that are nearest in eᵀ(H + λ)e to `weights` with zeros where `mask` has them, λ = damp times the mean of H's diagonal: `steps`
/// conjugate gradients from `start`, or fewer where they no longer gain.
std::vector<float> refit_masked(const std::vector<float>& weights, const std::vector<float>& start, const PruneMask& mask, int64_t out, const std::vector<float>& h, double damp, int steps, int threads = 1);

}  // namespace infopt
