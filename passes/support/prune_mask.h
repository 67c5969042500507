// Which weights of a layer stay: those with the highest scores, in the shape that a pattern allows. Weights are seen as W[out][k], k = input
// channels of a group × taps.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "passes/support/layers.h"

namespace infopt {

struct PrunePattern {
  enum class Kind { Unstructured, NM, Block };
  Kind kind = Kind::Unstructured;
  int64_t n = 2, m = 4;               ///< NM: of m inputs in a row, n stay
  int64_t rows = 16, columns = 1;     ///< Block: outputs × inputs that stay or go together
};
/// "unstructured", "2:4", "blocks of 16x1".
std::string describe(const PrunePattern& pattern);
/// The share of weights that an N:M pattern takes away; `wish` for the others.
double sparsity_of(const PrunePattern& pattern, double wish);

/// Within what the lowest scores are looked for.
enum class PruneRank { Layer, Row };

/// 1 where a weight stays.
using PruneMask = std::vector<uint8_t>;

/// Columns of W in an order in which the inputs that a pattern groups follow each other: for a kernel with taps, the same tap of successive
/// input channels.
std::vector<int64_t> grouped_columns(const Layer& layer);

/// Takes round(sparsity·count) of the lowest scores away, of the whole layer or of each row; of equal ones the later stay. N:M: of each m columns in
/// `order` the n highest stay (fewer columns at the end keep as many as n). Block: whole blocks by their mean score, until the share is
/// reached to half a block; blocks at the edges are smaller. `order` empty: as they are.
PruneMask prune_mask(const std::vector<double>& scores, int64_t out, int64_t k, const PrunePattern& pattern, double sparsity, PruneRank rank, const std::vector<int64_t>& order = {});

/// |w|, or |w|·‖x‖₂ (Wanda, arXiv 2306.11695) where `norms` has one for each of k.
std::vector<double> prune_scores(const std::vector<float>& weights, int64_t k, const std::vector<double>& norms = {});

/// Weights that a mask takes away become 0.
void apply_mask(const PruneMask& mask, std::vector<float>& weights);

}  // namespace infopt
