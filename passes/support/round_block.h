// Babai's rounding of a few columns of 16 rows side by side.
#pragma once
#include <cstdint>
#include <vector>

#include "passes/support/weight_grid.h"

namespace infopt {

inline constexpr int64_t kRows = 16;        ///< side by side
inline constexpr int64_t kMostColumns = 128;

/// A block's form: cost = Σu weight[u]·(eu + Σv>u factor[v·n+u]·ev)².
struct BlockForm {
  int64_t n = 0;
  std::vector<float> factor, weight;
};
/// Of the n×n block of a lower factor at l; rows `stride` apart.
BlockForm block_form(const float* l, int64_t stride, int64_t n);

/// Scales and zero points of 16 rows, one each.
struct RowGrids {
  alignas(64) float scale[kRows], zero[kRows];
};

/// The codes of a grid: which there are, and what of them is used.
struct CodeRange {
  float low, high;
  CodeSpacing spacing = {};
};

/// What a search has found so far, by row. Codes of floats are what they stand for, not their bits.
struct BlockCodes {
  alignas(64) float codes[kMostColumns * kRows];  ///< [column][row]
  RowGrids grids;
  alignas(64) float cost[kRows];
};

/// Rounds from the last column to the first. `w` are the weights, `t` their targets as columns outside the block have moved them (w itself
/// where none have), both [column][row] with `stride` between columns. Where `keep`, laid out alike, is 0 the value stays 0; null: nowhere.
void round_block(const BlockForm& form, const float* w, const float* t, int64_t stride, const RowGrids& grids, const CodeRange& range, BlockCodes& out, const float* keep = nullptr);
/// The cost of given codes, in out.codes and out.grids.
void price_block(const BlockForm& form, const float* w, const float* t, int64_t stride, BlockCodes& out);
/// Row by row, the cheaper of the two into `best`.
void keep_cheaper(int64_t n, const BlockCodes& other, BlockCodes& best);

}  // namespace infopt
