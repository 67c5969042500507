// How much of a learning's work each block gets, so that a model of any size ends within minutes.
#pragma once
#include <cstdint>
#include <vector>

namespace infopt {

/// What a block's learning costs.
struct BlockWork {
  double macs = 0;      ///< multiplications of one sample, once through
  double elements = 0;  ///< that its layers give out for one sample
  double weights = 0;
  double places = 1;    ///< fewest that one of its layers has in a sample: each a row of the product that its weights are fitted by
};

/// Steps of Adam and the samples of each; no steps: the block stays rounded to nearest.
struct BlockEffort {
  int iterations = 0, batch = 0;
};

/// Floating-point operations that such a learning takes, as many as its time is worth; measuring it on `samples` before and after counted.
double learning_flops(const BlockWork& work, const BlockEffort& effort, int64_t samples);

/// All that was asked for, where `budget` operations are enough for it; else smaller batches, of blocks with many places first; then fewer steps; then
/// the blocks that cost most are left out. `budget` 0: no limit.
std::vector<BlockEffort> share_learning(const std::vector<BlockWork>& blocks, BlockEffort asked, int64_t samples, double budget);

}  // namespace infopt
