#include "lib/bench/summary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace infopt {
namespace {

/// The worked examples of https://en.wikipedia.org/wiki/Percentile#The_nearest-rank_method.
TEST(Percentile, IsTheNearestRank) {
  const std::vector<double> five{15, 20, 35, 40, 50};
  EXPECT_EQ(percentile(five, 5), 15);
  EXPECT_EQ(percentile(five, 30), 20);
  EXPECT_EQ(percentile(five, 40), 20);
  EXPECT_EQ(percentile(five, 50), 35);
  EXPECT_EQ(percentile(five, 100), 50);
  const std::vector<double> ten{3, 6, 7, 8, 8, 10, 13, 15, 16, 20};
  EXPECT_EQ(percentile(ten, 25), 7);
  EXPECT_EQ(percentile(ten, 50), 8);
  EXPECT_EQ(percentile(ten, 75), 15);
  EXPECT_EQ(percentile(ten, 100), 20);
}

TEST(Percentile, OfAHundredIsTheRankItself) {
  std::vector<double> values(100);
  std::iota(values.begin(), values.end(), 1.0);
  for (int p = 1; p <= 100; ++p) EXPECT_EQ(percentile(values, p), p);
}

TEST(Summary, SortsAndHoldsAllFigures) {
  std::vector<double> values(200);
  std::iota(values.begin(), values.end(), 1.0);
  std::reverse(values.begin(), values.end());
  const Summary s = summarize(values);
  EXPECT_EQ(s.count, 200);
  EXPECT_EQ(s.mean, 100.5);
  EXPECT_EQ(s.min, 1);
  EXPECT_EQ(s.median, 100);
  EXPECT_EQ(s.p90, 180);
  EXPECT_EQ(s.p99, 198);
  EXPECT_EQ(s.max, 200);
}

TEST(Summary, OfNothingIsZero) { EXPECT_EQ(summarize({}).count, 0); }
TEST(Summary, OfOneValueIsThatValue) { EXPECT_EQ(summarize({7}).p99, 7); }

}  // namespace
}  // namespace infopt
