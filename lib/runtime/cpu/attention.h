// softmax(scale·Q·Kᵀ + mask)·V in float32, a block of queries against a block of keys at a time, so that no matrix of scores exists. Keys that
// a mask puts so low that their weight is exactly 0, or that bounds exclude, are left out (a V of infinities or NaN there then doesn't show).
#pragma once
#include <cstdint>
#include <limits>
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
  int64_t position = 0;        ///< where query 0 stands among the keys: what left and right count from
  int64_t known_keys = std::numeric_limits<int64_t>::max();  ///< keys from this one on have no weight
};

struct Attention {
  int64_t queries = 0, keys = 0, depth = 0, value_depth = 0;
  float scale = 1, softcap = 0;  ///< not 0: a scaled score s becomes softcap·tanh(s / softcap), before the masks
  bool has_mask = false, has_keep = false;
  bool keep_if = true;   ///< the value of `keep` that keeps a score
  float instead = 0;
  bool keep_last = true; ///< `keep` chooses after the mask is added
  int64_t mask_row = 0, keep_row = 0, out_row = 0;  ///< elements from one row to the next; 0 where all rows are one
  bool bounded = false;            ///< the bounds below, and known_keys, hold
  int64_t left = -1, right = -1;   ///< how far from its own position a query sees; −1: as far as there are keys
  bool one_position = false;       ///< all queries stand at `position`, rather than each behind the one before
  bool masked_is_zero = false;     ///< a query without a key gives 0, not NaN
  bool nan_is_zero = false;        ///< and so does one whose weights are NaN, whatever made them so
};

/// All heads, on the threads of the run; the bits don't depend on how many. A row whose scores are all −inf becomes NaN, as Softmax makes it,
/// unless masked_is_zero or nan_is_zero. Heads next to each other that share keys share their packed form.
void run_attention(const Attention& attention, const std::vector<AttentionHead>& heads);

}  // namespace infopt::cpu
