#include "passes/support/learning_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace infopt {
namespace {

constexpr double kElement = 60;     // operations that an activation's element is worth: its rounding, masks, sums, forwards and backwards
constexpr double kWeight = 300;     // a weight's, in each step: sigmoids, Adam
constexpr double kPlaces = 3000;    // of a batch, which are enough to learn by
constexpr int kLeastBatch = 2, kFewestSteps = 40;

double total(const std::vector<BlockWork>& blocks, const std::vector<BlockEffort>& efforts, int64_t samples) {
  double sum = 0;
  for (size_t i = 0; i < blocks.size(); ++i) sum += learning_flops(blocks[i], efforts[i], samples);
  return sum;
}

/// That of `wanted` which leaves the block enough places, if it ever had them.
int smaller_batch(const BlockWork& block, int wanted, int asked) {
  const double enough = std::ceil(kPlaces / std::max(1.0, block.places));
  return std::min(asked, std::max(wanted, static_cast<int>(std::min(enough, 1e6))));
}

}  // namespace

double learning_flops(const BlockWork& work, const BlockEffort& effort, int64_t samples) {
  if (effort.iterations == 0) return 0;
  const double step = effort.batch * (6 * work.macs + kElement * work.elements) + kWeight * work.weights;
  return effort.iterations * step + 2 * static_cast<double>(samples) * (2 * work.macs + kElement / 3 * work.elements);
}

std::vector<BlockEffort> share_learning(const std::vector<BlockWork>& blocks, BlockEffort asked, int64_t samples, double budget) {
  std::vector<BlockEffort> efforts(blocks.size(), asked);
  if (budget <= 0) return efforts;
  for (int batch = asked.batch / 2; batch >= kLeastBatch && total(blocks, efforts, samples) > budget; batch /= 2)
    for (size_t i = 0; i < blocks.size(); ++i) efforts[i].batch = smaller_batch(blocks[i], batch, asked.batch);
  while (total(blocks, efforts, samples) > budget && !efforts.empty() && efforts[0].iterations > kFewestSteps) {
    const int fewer = std::max(kFewestSteps, efforts[0].iterations * 9 / 10);
    for (BlockEffort& e : efforts) e.iterations = fewer;
  }
  std::vector<size_t> costliest(blocks.size());
  std::iota(costliest.begin(), costliest.end(), size_t{0});
  std::stable_sort(costliest.begin(), costliest.end(), [&](size_t a, size_t b) { return learning_flops(blocks[a], efforts[a], samples) > learning_flops(blocks[b], efforts[b], samples); });
  double left = total(blocks, efforts, samples);
  for (size_t i : costliest) {
    if (left <= budget) break;
    left -= learning_flops(blocks[i], efforts[i], samples);
    efforts[i].iterations = 0;
  }
  return efforts;
}

}  // namespace infopt
