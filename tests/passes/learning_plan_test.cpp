#include "passes/support/learning_plan.h"

#include <gtest/gtest.h>

#include <numeric>

namespace infopt::test {
namespace {

constexpr BlockEffort kAsked{200, 16};

double cost(const std::vector<BlockWork>& blocks, const std::vector<BlockEffort>& efforts, int64_t samples) {
  double sum = 0;
  for (size_t i = 0; i < blocks.size(); ++i) sum += learning_flops(blocks[i], efforts[i], samples);
  return sum;
}

/// A convolution of 3×3 over a map of `side`².
BlockWork convolution(double in, double out, double side) {
  return {.macs = 9 * in * out * side * side, .elements = out * side * side, .weights = 9 * in * out, .places = side * side};
}

TEST(LearningPlan, WhatFitsIsDoneAsAsked) {
  for (const BlockEffort& e : share_learning({convolution(16, 16, 8), convolution(8, 8, 16)}, kAsked, 64, 1e13)) {
    EXPECT_EQ(e.iterations, 200);
    EXPECT_EQ(e.batch, 16);
  }
  EXPECT_EQ(share_learning({convolution(1024, 1024, 512)}, kAsked, 64, 0)[0].iterations, 200);  // no limit
}

TEST(LearningPlan, LargeMapsGetSmallerBatchesFirst) {
  const std::vector<BlockWork> blocks{convolution(64, 64, 56), convolution(64, 64, 56), convolution(512, 512, 7)};
  const double all = cost(blocks, share_learning(blocks, kAsked, 64, 0), 64);
  const auto efforts = share_learning(blocks, kAsked, 64, all * 0.8);
  EXPECT_LT(efforts[0].batch, 16);
  EXPECT_EQ(efforts[2].batch, 16);  // 16 samples of 49 places are none too many
  EXPECT_EQ(efforts[0].iterations, 200);
  EXPECT_LE(cost(blocks, efforts, 64), all * 0.8);
}

TEST(LearningPlan, ThenStepsGetFewerForAll) {
  const std::vector<BlockWork> blocks(4, convolution(512, 512, 7));
  const double all = cost(blocks, share_learning(blocks, kAsked, 16, 0), 16);
  const auto efforts = share_learning(blocks, kAsked, 16, all / 2);
  for (const BlockEffort& e : efforts) {
    EXPECT_LT(e.iterations, 110);
    EXPECT_GE(e.iterations, 40);
    EXPECT_EQ(e.iterations, efforts[0].iterations);
  }
  EXPECT_LE(cost(blocks, efforts, 16), all / 2);
}

TEST(LearningPlan, AtLastTheCostliestAreLeftOut) {
  std::vector<BlockWork> blocks(10, convolution(64, 64, 14));
  blocks[4] = convolution(64, 64, 1024);
  const double without = cost({blocks[0]}, {{40, 16}}, 16) * 9;
  const auto efforts = share_learning(blocks, kAsked, 16, without);
  for (size_t i = 0; i < blocks.size(); ++i) EXPECT_EQ(efforts[i].iterations > 0, i != 4);
  EXPECT_LE(cost(blocks, efforts, 16), without);
}

}  // namespace
}  // namespace infopt::test
