#include "calibration/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace infopt {
namespace {

/// Numbers of very different magnitude; the values are exact in float.
std::vector<float> values(size_t count, unsigned seed, float scale) {
  std::mt19937 random(seed);
  std::vector<float> out(count);
  for (float& f : out) f = scale * (static_cast<float>(random() >> 8) / 8388608.0f - 1) * (static_cast<float>(random() >> 8) / 16777216.0f);
  return out;
}

Histogram of(const std::vector<float>& v) {
  Histogram h;
  float extent = 0;
  for (float f : v) extent = std::max(extent, std::fabs(f));
  h.add(v.data(), static_cast<int64_t>(v.size()), extent);
  return h;
}

bool equal(const Histogram& a, const Histogram& b) { return a.exponent() == b.exponent() && a.counts() == b.counts(); }

/// np.histogram(v, 4096, (-2**e, 2**e)) by its definition: bin i holds [i, i + 1) · width − 2^e.
std::vector<int64_t> by_definition(const std::vector<float>& v, int exponent) {
  std::vector<int64_t> counts(4096, 0);
  for (float f : v) ++counts[static_cast<size_t>(std::floor(std::ldexp(static_cast<double>(f), 11 - exponent)) + 2048)];
  return counts;
}

TEST(Histogram, HoldsWhatItsEdgesSay) {
  const auto v = values(100001, 1, 3);
  const Histogram h = of(v);
  EXPECT_EQ(h.exponent(), 2);
  EXPECT_DOUBLE_EQ(h.lower(0), -4);
  EXPECT_DOUBLE_EQ(h.lower(Histogram::kBins), 4);
  EXPECT_EQ(h.counts(), by_definition(v, 2));
  EXPECT_EQ(h.total(), 100001);
}

TEST(Histogram, EdgesBelongToTheBinAbove) {
  // numpy: np.histogram([-1, -0.5, -0.0, 0, 0.25, 1], 4096, (-2, 2))[0].nonzero()
  const Histogram h = of({-1, -0.5f, -0.0f, 0, 0.25f, 1});
  EXPECT_EQ(h.exponent(), 1);  // a power of two needs the next range
  for (const auto& [bin, count] : std::vector<std::pair<size_t, int64_t>>{{1024, 1}, {1536, 1}, {2048, 2}, {2304, 1}, {3072, 1}}) EXPECT_EQ(h.counts()[bin], count) << bin;
}

TEST(Histogram, DoublingIsAsIfTheRangeHadBeenWideFromTheStart) {
  auto small = values(5000, 2, 0.01f);
  const auto large = values(5000, 3, 77);
  Histogram grown = of(small);
  grown.merge(of(large));
  small.insert(small.end(), large.begin(), large.end());
  EXPECT_TRUE(equal(grown, of(small)));
  EXPECT_EQ(grown.counts(), by_definition(small, grown.exponent()));
}

TEST(Histogram, MergingInAnyOrderGivesTheSame) {
  std::vector<Histogram> parts;
  for (unsigned i = 0; i < 5; ++i) parts.push_back(of(values(1000 + 7 * i, i, std::ldexp(1.0f, static_cast<int>(i * 5 % 7) * 4 - 9))));
  std::vector<size_t> order{0, 1, 2, 3, 4};
  Histogram first;
  for (const Histogram& p : parts) first.merge(p);
  while (std::next_permutation(order.begin(), order.end())) {
    Histogram merged;
    for (size_t i : order) merged.merge(parts[i]);
    ASSERT_TRUE(equal(merged, first));
  }
  Histogram pairs = parts[3], rest = parts[1];
  pairs.merge(parts[4]), rest.merge(parts[0]), rest.merge(parts[2]), pairs.merge(rest);
  EXPECT_TRUE(equal(pairs, first));
}

TEST(Histogram, EmptyOnesChangeNothing) {
  const Histogram h = of(values(10, 1, 1));
  Histogram merged = h, fresh;
  merged.merge(Histogram());
  fresh.merge(h);
  EXPECT_TRUE(equal(merged, h));
  EXPECT_TRUE(equal(fresh, h));
  EXPECT_TRUE(Histogram().empty());
  EXPECT_EQ(Histogram().total(), 0);
}

TEST(Histogram, NegativeDenormalsAreBelowZeroWhateverTheRange) {
  for (float large : {1.5f, 1e10f, 3e38f}) {
    const std::vector<float> v{large, -1e-45f, 1e-45f, -1e-38f, -0.0f};
    const Histogram h = of(v);
    EXPECT_EQ(h.counts()[2047], 2) << large;
    EXPECT_EQ(h.counts(), by_definition(v, h.exponent())) << large;
  }
}

TEST(Histogram, TakesZerosAndTheSmallestAndLargestFloats) {
  EXPECT_EQ(of({0, 0, 0}).counts()[2048], 3);
  const Histogram tiny = of({1e-45f, -1e-45f, 0});
  EXPECT_EQ(tiny.counts()[2048], 2);
  EXPECT_EQ(tiny.counts()[2047], 1);
  const Histogram huge = of({3.4e38f, -3.4e38f, 1});
  EXPECT_EQ(huge.total(), 3);
  EXPECT_EQ(huge.exponent(), 128);
  EXPECT_EQ(huge.counts().back(), 1 - (3.4e38 / huge.width() < 2047));
}

}  // namespace
}  // namespace infopt
