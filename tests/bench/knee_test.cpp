#include "lib/bench/knee.h"

#include <gtest/gtest.h>

namespace infopt {
namespace {

TEST(Gain, IsPerDoubling) {
  EXPECT_NEAR(gain_per_doubling({1, 100, 0}, {2, 150, 0}), 0.5, 1e-12);
  EXPECT_NEAR(gain_per_doubling({1, 100, 0}, {4, 225, 0}), 0.5, 1e-12);  // 1.5² over two doublings
  EXPECT_NEAR(gain_per_doubling({8, 100, 0}, {64, 100, 0}), 0, 1e-12);
  EXPECT_NEAR(gain_per_doubling({8, 100, 0}, {16, 50, 0}), -0.5, 1e-12);
  EXPECT_NEAR(gain_per_doubling({2, 100, 0}, {3, 150, 0}), 1, 1e-12);  // as fast as the batch grows
}

TEST(Knee, IsTheBatchBeforeTheFirstStepThatGainsTooLittle) {
  const std::vector<BatchPoint> points{{1, 100, 1}, {2, 180, 1}, {4, 220, 2}, {8, 235, 4}, {16, 300, 6}};
  EXPECT_EQ(find_knee(points, 0.10), 4);  // 8 gains 6.8 %; that 16 gains again doesn't count
  EXPECT_EQ(find_knee(points, 0.05), 16);
  EXPECT_EQ(find_knee(points, 0.30), 2);
  EXPECT_EQ(find_knee(points, 0.90), 1);
}

TEST(Knee, NeedsTwoPoints) {
  EXPECT_FALSE(find_knee({}, 0.1));
  EXPECT_FALSE(find_knee({{1, 100, 1}}, 0.1));
}

TEST(LargestWithin, IsTheLargestBatchWhoseP99MeetsTheTarget) {
  const std::vector<BatchPoint> points{{1, 0, 2}, {2, 0, 3}, {4, 0, 5}, {8, 0, 4.5}, {16, 0, 9}};
  EXPECT_EQ(largest_within(points, 3), 2);
  EXPECT_EQ(largest_within(points, 4.9), 8);
  EXPECT_EQ(largest_within(points, 100), 16);
  EXPECT_FALSE(largest_within(points, 1.9));
}

}  // namespace
}  // namespace infopt
