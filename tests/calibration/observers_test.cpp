#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "calibration/observer.h"
#include "lib/base/error.h"

namespace infopt {
namespace {

std::vector<float> normal(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> out(count);
  for (float& f : out) {
    f = -6;
    for (int i = 0; i < 12; ++i) f += static_cast<float>(random() >> 8) / 16777216.0f;
  }
  return out;
}

TensorStatistics statistics(const std::vector<float>& values) { return collect(Tensor::vector(values), Layout::Plain, -1); }

Range range(const std::string& name, const TensorStatistics& s, const ObserverOptions& options = {}) { return find_observer(name).range(s, options); }

std::vector<float> with_outlier(unsigned seed) {
  auto v = normal(50000, seed);
  v.push_back(400);
  return v;
}

TEST(Observers, MinmaxIsTheExtremes) {
  const Range r = range("minmax", statistics({3, -2, 7, 0}));
  EXPECT_EQ(r.low, -2);
  EXPECT_EQ(r.high, 7);
}

TEST(Observers, PercentileIsTheQuantileToABin) {
  auto v = normal(40000, 3);
  const auto s = statistics(v);
  std::sort(v.begin(), v.end());
  for (double percentile : {90.0, 99.0, 99.9, 99.99}) {
    const Range r = range("percentile", s, {.percentile = percentile});
    const double tail = (1 - percentile / 100) / 2;
    // np.quantile(v, q): the element at q · (n − 1), between two of them linearly
    auto quantile = [&](double q) {
      const double at = q * static_cast<double>(v.size() - 1);
      const auto i = static_cast<size_t>(at);
      return std::pair{static_cast<double>(v[i]), static_cast<double>(v[std::min(i + 2, v.size() - 1)])};
    };
    const double width = s.histogram.width();
    EXPECT_GE(r.low, static_cast<double>(v[static_cast<size_t>(std::max(0.0, tail * static_cast<double>(v.size()) - 2))]) - width) << percentile;
    EXPECT_LE(r.low, quantile(tail).second + width) << percentile;
    EXPECT_GE(r.high, quantile(1 - tail).first - (quantile(1 - tail).second - quantile(1 - tail).first) - width) << percentile;
    EXPECT_LE(r.high, quantile(1 - tail).second + width) << percentile;
  }
}

TEST(Observers, PercentileOfHundredIsTheExtremes) {
  const auto s = statistics(normal(1000, 4));
  const Range r = range("percentile", s, {.percentile = 100});
  EXPECT_NEAR(r.low, s.min, s.histogram.width());
  EXPECT_NEAR(r.high, s.max, s.histogram.width());
}

TEST(Observers, MseIsNoWorseThanMinmax) {
  for (unsigned seed = 0; seed < 6; ++seed)
    for (bool symmetric : {false, true}) {
      const auto v = seed % 2 ? with_outlier(seed) : normal(5000, seed);
      const auto s = statistics(v);
      const ObserverOptions options{.symmetric = symmetric};
      const int low = symmetric ? -127 : 0, high = symmetric ? 127 : 255;
      auto error = [&](const std::string& name) { return histogram_mse(s.histogram, quantization_of(range(name, s, options), symmetric, symmetric), low, high); };
      EXPECT_LE(error("mse"), error("minmax")) << seed << symmetric;
    }
}

TEST(Observers, EntropyClipsAFarOutlierAndKeepsTheBulk) {
  for (unsigned seed : {1u, 2u, 3u}) {
    const Range r = range("entropy", statistics(with_outlier(seed)));
    EXPECT_LT(r.high, 100) << seed;
    EXPECT_GE(r.high, 2.5) << seed;
    EXPECT_LE(r.low, -2.5) << seed;
  }
}

TEST(Observers, EntropyOfUniformNumbersClipsNothing) {
  std::mt19937 random(5);
  std::vector<float> v(100000);
  for (float& f : v) f = static_cast<float>(random() >> 8) / 16777216.0f;
  EXPECT_GT(range("entropy", statistics(v)).high, 0.95);
}

TEST(Observers, EntropyClipsNothingWhereThereAreFewValues) {
  for (size_t count : {size_t{10}, size_t{320}, size_t{1000}}) {
    const auto s = statistics(normal(count, 6));
    const Range r = range("entropy", s);
    EXPECT_EQ(r.low, s.min) << count;
    EXPECT_EQ(r.high, s.max) << count;
  }
}

/// Mean squared error of 256 levels over the range, from the values themselves.
double noise_of(const std::vector<float>& values, const Range& r) {
  const Quantization q = quantization_of(r, false, false);
  double noise = 0;
  for (float f : values) {
    const double code = std::clamp(std::nearbyint(static_cast<double>(f) / static_cast<double>(q.scale)) + q.zero_point, 0.0, 255.0);
    const double d = (code - q.zero_point) * static_cast<double>(q.scale) - static_cast<double>(f);
    noise += d * d;
  }
  return noise / static_cast<double>(values.size());
}

TEST(Observers, EntropyOfASmoothTailIsNoNoisierThanMinmax) {
  for (unsigned seed : {11u, 12u, 13u})
    for (int shape = 0; shape < 4; ++shape) {
      auto v = normal(200000, seed);
      for (float& f : v) f = shape == 0 ? f : shape == 1 ? std::max(f, 0.0f) : shape == 2 ? f * f : f * std::clamp(f + 3, 0.0f, 6.0f) / 6;
      const auto s = statistics(v);
      EXPECT_LE(noise_of(v, range("entropy", s)), 1.1 * noise_of(v, {s.min, s.max})) << seed << ' ' << shape;
    }
}

TEST(Observers, EntropyKeepsOutliersThatAreMany) {
  auto v = normal(50000, 14);
  for (size_t i = 0; i < v.size(); i += 50) v[i] *= 30;
  const auto s = statistics(v);
  EXPECT_GT(range("entropy", s).high, 0.6 * static_cast<double>(s.max));
}

TEST(Observers, AllStayWithinWhatWasSeenAndKeepAConstantTensor) {
  for (const ObserverDef& o : all_observers()) {
    for (const auto& v : {normal(3000, 8), with_outlier(9), std::vector<float>(100, 5.0f), std::vector<float>(100, -5.0f), std::vector<float>(100, 0.0f)}) {
      const auto s = statistics(v);
      const Range r = o.range(s, {});
      EXPECT_GE(r.low, std::min(0.0f, s.min)) << o.name;
      EXPECT_LE(r.high, std::max(0.0f, s.max)) << o.name;
      EXPECT_LE(r.low, r.high + 1e-6) << o.name;
    }
    const Quantization q = quantization_of(o.range(statistics(std::vector<float>(100, 5.0f)), {}), false, false);
    EXPECT_NEAR((std::min(255.0, std::nearbyint(5 / static_cast<double>(q.scale)) + q.zero_point) - q.zero_point) * static_cast<double>(q.scale), 5, 0.2) << o.name;
  }
}

TEST(Observers, UnknownOneIsAnErrorThatNamesThem) {
  try {
    find_observer("median");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Usage);
    EXPECT_THAT(e.what(), testing::AllOf(testing::HasSubstr("entropy"), testing::HasSubstr("minmax"), testing::HasSubstr("mse"), testing::HasSubstr("percentile")));
  }
}

TEST(Quantization, ZeroIsExactlyRepresentable) {
  for (const Range r : {Range{-1, 3}, {0.5, 3}, {-3, -0.5}, {-1e-3, 1e3}, {-1e3, 1e-3}, {0, 1}, {-1, 0}})
    for (bool is_signed : {false, true}) {
      const Quantization q = quantization_of(r, is_signed, false);
      const int least = is_signed ? -128 : 0;
      EXPECT_GE(q.zero_point, least);
      EXPECT_LE(q.zero_point, least + 255);
      // both ends to half a step
      const double scale = static_cast<double>(q.scale);
      EXPECT_LE((least - q.zero_point) * scale, std::min(r.low, 0.0) + scale * 0.501) << r.low << ' ' << r.high;
      EXPECT_GE((least + 255 - q.zero_point) * scale, std::max(r.high, 0.0) - scale * 0.501) << r.low << ' ' << r.high;
    }
}

TEST(Quantization, SymmetricHasZeroPointZeroAndReaches127) {
  const Quantization q = quantization_of({-2, 12.7}, true, true);
  EXPECT_EQ(q.zero_point, 0);
  EXPECT_FLOAT_EQ(q.scale, 0.1f);
}

TEST(Quantization, ZeroPointRoundsHalfToEven) {
  EXPECT_EQ(quantization_of({-0.5, 254.5}, false, false).zero_point, 0);
  EXPECT_EQ(quantization_of({-1.5, 253.5}, false, false).zero_point, 2);
  EXPECT_EQ(quantization_of({-2.5, 252.5}, false, false).zero_point, 2);
}

TEST(Quantization, RangeOfNoWidthHasScaleOne) {
  for (const Range r : {Range{0, 0}, {1e-320, 1e-320}, {-1e-320, 0}})
    for (bool symmetric : {false, true}) {
      const Quantization q = quantization_of(r, symmetric, symmetric);
      EXPECT_EQ(q.scale, 1.0f);
      EXPECT_EQ(q.zero_point, 0);
    }
}

}  // namespace
}  // namespace infopt
