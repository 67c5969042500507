#include "passes/support/sparsegpt.h"

#include <gtest/gtest.h>

#include <limits>

#include "lib/base/error.h"
#include "passes/support/gptq.h"
#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

// All values: python3 tests/passes/sparsegpt_reference.py
const std::vector<float> kH{89,  206, 0,   -1,  -3,  22, 19,  -3,  206, 536, 41, -36, -19, 29, 49, -4, 0,  41, 105, -79, -18, -38,
                            49,  22,  -1,  -36, -79, 152, 9,  16,  -28, -37, -3, -19, -18, 9,  81, 2,  -12, 2, 22,  29,  -38, 16,
                            2,   92,  -28, 7,   19,  49, 49,  -28, -12, -28, 118, 7,  -3,  -4, 22, -37, 2,  7, 7,   68};
const std::vector<float> kWeights{-0.07f, -1.44f, -0.57f, 2.95f, -0.79f, 2.76f, 0.08f, -0.94f, 2.78f, -0.33f, 1.75f, -1.02f,
                                  3.04f,  1.52f,  2.35f,  -2.74f, -2.38f, -2.58f, 0.26f, -0.56f, 2.94f, -1.53f, -1.94f, 2.18f};
const PrunePattern kTwoOfFour{PrunePattern::Kind::NM, 2, 4};

void expect_near(const std::vector<float>& found, const std::vector<double>& expected, double bound) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(found[i]), expected[i], bound) << i;
    EXPECT_EQ(found[i] == 0, expected[i] == 0) << i;
  }
}

TEST(SparseGpt, HalfOfTheWeightsAsThePaperHasIt) {
  expect_near(sparsegpt(kWeights, 3, kH, {.sparsity = 0.5}).weights, {0, -1.46693, 0, 3.178574, 0, 2.916502, 0, 0, 0, 0, 0, 0, 2.670619, 1.475272, 3.512864, -1.846676, 0, -3.495636, 0, 0, 2.708286, -2.017374, -1.870683, 2.658888},
              1e-4);
}

TEST(SparseGpt, TwoOfFourAsThePaperHasIt) {
  expect_near(sparsegpt(kWeights, 3, kH, {.pattern = kTwoOfFour}).weights,
              {0, -1.46693, 0, 3.178574, 0, 2.916502, 0, -1.027648, 0, 0, 1.671921, -1.029535, 3.061552, 0, 2.328209, 0, -2.38, -2.58, 0, 0, 2.841017, 0, 0, 2.213759}, 1e-4);
}

TEST(SparseGpt, WhatStaysIsFittedToTheExactSolution) {
  expect_near(sparsegpt(kWeights, 3, kH, {.pattern = kTwoOfFour, .refit_steps = 30}).weights,
              {0, -1.472554, 0, 3.130874, 0, 2.921915, 0, -1.053891, 0, 0, 0.574967, -0.6699826, 2.738007, 0, 2.673403, 0, -4.905332, -1.807011, 0, 0, 3.154294, 0, 0, 2.140279}, 2e-3);
}

/// H of inputs that are mixed, as a layer's are.
std::vector<float> moments(int64_t k, int64_t rows) {
  const std::vector<float> z = to_vector<float>(test::noise(DType::F32, {rows, k}, 3));
  std::vector<float> x = z, h(static_cast<size_t>(k * k), 0.0f);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 1; i < k; ++i) x[static_cast<size_t>(r * k + i)] += 0.7f * x[static_cast<size_t>(r * k + i - 1)];
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j) h[static_cast<size_t>(i * k + j)] += x[static_cast<size_t>(r * k + i)] * x[static_cast<size_t>(r * k + j)];
  return h;
}

TEST(SparseGpt, LosesLessThanMagnitudeAndTheFitLessStill) {
  const int64_t k = 300, out = 70;  // more than two blocks of columns, more than one slab of rows
  const std::vector<float> w = to_vector<float>(test::noise(DType::F32, {out, k}, 1)), h = moments(k, 500);
  struct { PrunePattern pattern; double sparsity; } cases[] = {{{}, 0.5}, {{}, 0.8}, {kTwoOfFour, 0.5}, {{PrunePattern::Kind::Block, 2, 4, 16, 1}, 0.5}};
  for (const auto& c : cases) {
    SCOPED_TRACE(describe(c.pattern));
    std::vector<float> small = w;
    apply_mask(prune_mask(prune_scores(w, k), out, k, c.pattern, c.sparsity, PruneRank::Layer), small);
    const PrunedWeights swept = sparsegpt(w, out, h, {.pattern = c.pattern, .sparsity = c.sparsity});
    const PrunedWeights fitted = sparsegpt(w, out, h, {.pattern = c.pattern, .sparsity = c.sparsity, .refit_steps = 20});
    const double by_size = quadratic_error(w, small, out, h), by_sweep = quadratic_error(w, swept.weights, out, h);
    EXPECT_LT(by_sweep, 0.9 * by_size);
    EXPECT_LT(quadratic_error(w, fitted.weights, out, h), 0.9 * by_sweep);
    EXPECT_EQ(swept.mask, fitted.mask);
    const auto zeros = std::count(swept.mask.begin(), swept.mask.end(), uint8_t{0});
    EXPECT_NEAR(static_cast<double>(zeros), c.sparsity * static_cast<double>(out * k), c.pattern.kind == PrunePattern::Kind::Block ? 16 : 1);
    for (size_t i = 0; i < w.size(); ++i) EXPECT_EQ(swept.mask[i] == 0, fitted.weights[i] == 0);
  }
}

TEST(SparseGpt, AnyNumberOfThreadsGivesTheSameBits) {
  const int64_t k = 200, out = 150;
  const std::vector<float> w = to_vector<float>(test::noise(DType::F32, {out, k}, 1)), h = moments(k, 300);
  for (const PrunePattern& pattern : {PrunePattern{}, kTwoOfFour}) {
    const auto one = sparsegpt(w, out, h, {.pattern = pattern, .refit_steps = 5}), three = sparsegpt(w, out, h, {.pattern = pattern, .refit_steps = 5, .threads = 3});
    EXPECT_EQ(one.weights, three.weights);
  }
}

TEST(SparseGpt, InputsThatAreAlwaysZeroGoFirst) {
  std::vector<float> h(16, 0.0f);
  h[0] = h[5] = 4;  // inputs 2 and 3 are never seen
  const PrunedWeights p = sparsegpt({0.5f, -0.25f, 100, 100}, 1, h, {.sparsity = 0.5});
  EXPECT_EQ(p.mask, (PruneMask{1, 1, 0, 0}));
  EXPECT_EQ(sparsegpt({1, 2, 3, 4}, 1, std::vector<float>(16, 0.0f), {.sparsity = 0.5}).mask, (PruneMask{0, 0, 1, 1}));
}

TEST(SparseGpt, NaNIsRefused) {
  std::vector<float> w = kWeights, h = kH;
  w[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(sparsegpt(w, 3, kH, {}), Error);
  h[0] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(sparsegpt(kWeights, 3, h, {}), Error);
}

TEST(SparseGpt, GptqRoundsAroundItsZeros) {
  const int64_t k = 96, out = 40;
  const std::vector<float> w = to_vector<float>(test::noise(DType::F32, {out, k}, 1)), h = moments(k, 300);
  const PrunedWeights pruned = sparsegpt(w, out, h, {.sparsity = 0.6});
  struct { DType type; int64_t block; bool symmetric; } formats[] = {{DType::I4, 32, true}, {DType::U4, 32, false}};
  for (const auto& f : formats) {
    const WeightFormat format{f.type, f.block, f.symmetric};
    GptqOptions free, kept;
    kept.keep = pruned.mask;
    kept.act_order = false;  // the order that the mask was chosen in
    const std::vector<float> joint = decode(gptq(w, out, h, format, kept)), after = decode(gptq(pruned.weights, out, h, format, kept));
    const std::vector<float> nearest = decode(round_to_nearest(pruned.weights, fit_grid(pruned.weights, out, k, format, GridFit::LeastSquares)));
    const std::vector<float> refilled = decode(gptq(w, out, h, format, free));
    size_t filled = 0;
    for (size_t i = 0; i < w.size(); ++i) {
      if (pruned.mask[i]) continue;
      EXPECT_EQ(joint[i], 0);
      EXPECT_EQ(after[i], 0);
      filled += refilled[i] != 0;
    }
    EXPECT_GT(filled, 0u);
    // One sweep over the weights as they were makes up for both; so does one over those that SparseGPT moved.
    EXPECT_LT(quadratic_error(w, joint, out, h), quadratic_error(w, nearest, out, h));
    EXPECT_LT(quadratic_error(w, after, out, h), quadratic_error(w, nearest, out, h));
  }
}

}  // namespace
}  // namespace infopt
