#include "passes/support/prune_mask.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lib/base/error.h"
#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using Kind = PrunePattern::Kind;
// tests/passes/sparsegpt_reference.py
const std::vector<float> kWeights{-0.07f, -1.44f, -0.57f, 2.95f, -0.79f, 2.76f, 0.08f, -0.94f, 2.78f, -0.33f, 1.75f, -1.02f,
                                  3.04f,  1.52f,  2.35f,  -2.74f, -2.38f, -2.58f, 0.26f, -0.56f, 2.94f, -1.53f, -1.94f, 2.18f};
const std::vector<double> kEnergies{89, 536, 105, 152, 81, 92, 118, 68};

TEST(PruneMask, MagnitudeTakesTheSmallestOfTheLayer) {
  const PruneMask mask = prune_mask(prune_scores(kWeights, 8), 3, 8, {}, 0.5, PruneRank::Layer);
  EXPECT_EQ(mask, (PruneMask{0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 1, 0, 1, 1}));
}

TEST(PruneMask, WandaComparesWithinARowByTheInputsNorms) {
  std::vector<double> norms;
  for (double e : kEnergies) norms.push_back(std::sqrt(e));
  const PruneMask mask = prune_mask(prune_scores(kWeights, 8, norms), 3, 8, {}, 0.5, PruneRank::Row);
  EXPECT_EQ(mask, (PruneMask{0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 0, 0, 1, 0, 1, 1, 1, 1, 0, 0, 1, 0, 1, 0}));
}

/// The most that any choice of n of m can keep, by trying all.
double best_kept(const std::vector<double>& scores, size_t from, int64_t m, int64_t n) {
  double best = 0;
  for (unsigned choice = 0; choice < (1u << m); ++choice) {
    if (__builtin_popcount(choice) != n) continue;
    double sum = 0;
    for (int64_t i = 0; i < m; ++i)
      if (choice >> i & 1) sum += scores[from + static_cast<size_t>(i)];
    best = std::max(best, sum);
  }
  return best;
}

TEST(PruneMask, EachGroupKeepsTheBestOfAllChoices) {
  const std::vector<float> w = to_vector<float>(test::noise(DType::F32, {6, 24}, 5));
  const std::vector<double> scores = prune_scores(w, 24);
  struct { int64_t n, m; } cases[] = {{2, 4}, {1, 4}, {4, 8}, {3, 6}};
  for (const auto& c : cases) {
    const PruneMask mask = prune_mask(scores, 6, 24, {Kind::NM, c.n, c.m}, 0, PruneRank::Layer);
    for (size_t from = 0; from < w.size(); from += static_cast<size_t>(c.m)) {
      double kept = 0;
      int64_t count = 0;
      for (size_t i = from; i < from + static_cast<size_t>(c.m); ++i)
        if (mask[i]) kept += scores[i], ++count;
      EXPECT_EQ(count, c.n);
      EXPECT_DOUBLE_EQ(kept, best_kept(scores, from, c.m, c.n)) << c.n << ":" << c.m << " at " << from;
    }
  }
}

TEST(PruneMask, GroupsRunAlongInputChannelsOfOneTap) {
  Layer layer;
  layer.out = 1, layer.in = 4, layer.taps = 2, layer.convolution = true;
  EXPECT_EQ(grouped_columns(layer), (std::vector<int64_t>{0, 2, 4, 6, 1, 3, 5, 7}));
  // Channel by channel: (tap 0, tap 1). Of tap 0 the channels 0 and 1 are largest, of tap 1 the channels 2 and 3.
  const std::vector<float> w{8, 1, 7, 2, 3, 5, 4, 6};
  EXPECT_EQ(prune_mask(prune_scores(w, 8), 1, 8, {Kind::NM, 2, 4}, 0, PruneRank::Layer, grouped_columns(layer)), (PruneMask{1, 0, 1, 0, 0, 1, 0, 1}));
}

TEST(PruneMask, AShortGroupAtTheEndKeepsAsManyAsAFullOne) {
  EXPECT_EQ(prune_mask(prune_scores({1, 2, 3, 4, 5, 6}, 6), 1, 6, {Kind::NM, 2, 4}, 0, PruneRank::Layer), (PruneMask{0, 0, 1, 1, 1, 1}));
  EXPECT_EQ(prune_mask(prune_scores({1, 2, 3, 4, 6, 5, 7}, 7), 1, 7, {Kind::NM, 2, 4}, 0, PruneRank::Layer), (PruneMask{0, 0, 1, 1, 1, 0, 1}));
}

TEST(PruneMask, BlocksGoWhole) {
  // Blocks of 2 outputs × 2 inputs with means 1, 5, 3 and 2.
  const std::vector<float> w{1, 1, 5, 4, 1, 1, 6, 5, 3, 4, 2, 2, 3, 2, 1, 3};
  EXPECT_EQ(prune_mask(prune_scores(w, 4), 4, 4, {Kind::Block, 2, 4, 2, 2}, 0.5, PruneRank::Layer), (PruneMask{0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0}));
}

TEST(PruneMask, TheCountIsExactAndEqualScoresKeepTheLater) {
  for (double sparsity : {0.0, 0.1, 0.33, 0.5, 0.77, 0.99}) {
    const PruneMask mask = prune_mask(std::vector<double>(1000, 1.0), 10, 100, {}, sparsity, PruneRank::Layer);
    const auto gone = static_cast<size_t>(std::lround(sparsity * 1000));
    for (size_t i = 0; i < mask.size(); ++i) EXPECT_EQ(mask[i], i >= gone) << sparsity;
  }
}

TEST(PruneMask, AnInfiniteWeightIsRefused) {
  EXPECT_THROW(prune_mask({1, std::numeric_limits<double>::infinity()}, 1, 2, {}, 0.5, PruneRank::Layer), Error);
}

}  // namespace
}  // namespace infopt
