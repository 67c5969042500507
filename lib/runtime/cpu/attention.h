// softmax(scale·Q·Kᵀ + mask)·V in float32, a block of queries against a block of keys at a time, so that no matrix of scores exists. Keys that
// a mask puts so low that their weight is exactly 0 are left out (a V of infinities or NaN there then doesn't show).
#pragma once
#include <cstdint>
#include <vector>

namespace infopt::cpu {

/// A matrix wherever it lies: element (r, c) at data[r·row + c·column].
struct FloatView {
  const float* data = nullptr;
  int64_t row = 0, column = 1;
};

struct AttentionHead {
  FloatView q, k, v;           ///< queries × depth, keys × depth, keys × value_depth
  const float* mask = nullptr; ///< added; elements of a row follow each other
  const bool* keep = nullptr;  ///< likewise; where it differs from Attention::keep_if the score is Attention::instead
  float* out = nullptr;        ///< queries × value_depth; elements of a row follow each other
};

struct Attention {
  int64_t queries = 0, keys = 0, depth = 0, value_depth = 0;
  float scale = 1;
  bool has_mask = false, has_keep = false;
  bool keep_if = true;   ///< the value of `keep` that keeps a score
  float instead = 0;
  bool keep_last = true; ///< `keep` chooses after the mask is added
  int64_t mask_row = 0, keep_row = 0, out_row = 0;  ///< elements from one row to the next; 0 where all rows are one
};

/// All heads, on the threads of the run; the bits don't depend on how many. A row whose scores are all −inf becomes NaN, as Softmax makes it.
void run_attention(const Attention& attention, const std::vector<AttentionHead>& heads);

}  // namespace infopt::cpu
