#include "passes/support/equalize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace infopt {
namespace {

constexpr size_t kRows = 4000, kIn = 24, kOut = 16;

double uniform(std::mt19937& random) { return static_cast<double>(random() >> 8) / 8388608.0 - 1; }

/// A product x·Wᵀ whose input has one channel that is `outlier` times as large as the others.
struct Product {
  explicit Product(double outlier, unsigned seed = 1) : x(kRows * kIn), w(kOut * kIn) {
    std::mt19937 random(seed);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(uniform(random) * (i % kIn == 3 ? outlier : 1.0));
    for (float& f : w) f = static_cast<float>(uniform(random));
    for (size_t n = 0; n < kOut; ++n) w[n * kIn + 3] *= 0.05f;
    statistics = collect(Tensor::of<float>({kRows, kIn}, x), Layout::Plain, -1);
  }

  std::vector<double> multiply(const std::vector<double>& a, const std::vector<double>& b) const {
    std::vector<double> y(kRows * kOut, 0);
    for (size_t r = 0; r < kRows; ++r)
      for (size_t n = 0; n < kOut; ++n)
        for (size_t k = 0; k < kIn; ++k) y[r * kOut + n] += a[r * kIn + k] * b[n * kIn + k];
    return y;
  }

  double signal() const {  // E‖xW‖² of a row
    double sum = 0;
    for (double y : multiply({x.begin(), x.end()}, {w.begin(), w.end()})) sum += y * y;
    return sum / kRows;
  }

  /// Noise over signal of the product that is really done in 8 bits.
  double simulate(const std::vector<double>& s) const {
    std::vector<double> a(x.begin(), x.end()), b(w.begin(), w.end());
    for (size_t i = 0; i < a.size() && !s.empty(); ++i) a[i] /= s[i % kIn];
    for (size_t i = 0; i < b.size() && !s.empty(); ++i) b[i] *= s[i % kIn];
    const std::vector<double> exact = multiply(a, b);
    const auto [low, high] = std::minmax_element(a.begin(), a.end());
    const double step = (*high - *low) / 255;
    for (double& v : a) v = std::nearbyint(v / step) * step;
    for (size_t n = 0; n < kOut; ++n) {
      double largest = 0;
      for (size_t k = 0; k < kIn; ++k) largest = std::max(largest, std::fabs(b[n * kIn + k]));
      for (size_t k = 0; k < kIn; ++k) b[n * kIn + k] = std::nearbyint(b[n * kIn + k] / (largest / 127)) * (largest / 127);
    }
    const std::vector<double> y = multiply(a, b);
    double noise = 0, power = 0;
    for (size_t i = 0; i < y.size(); ++i) noise += (y[i] - exact[i]) * (y[i] - exact[i]), power += exact[i] * exact[i];
    return noise / power;
  }

  std::vector<float> x, w;
  TensorStatistics statistics;
};

TEST(ProductNoise, IsWhatASimulationSees) {
  for (double outlier : {1.0, 10.0, 60.0}) {
    const Product p(outlier);
    const ProductNoise noise(p.w, kOut, kIn, p.signal());
    EXPECT_NEAR(10 * std::log10(noise.nsr(p.statistics, {})), 10 * std::log10(p.simulate({})), 1.5) << outlier;
    std::vector<double> s(kIn, 1);
    s[3] = 4;
    EXPECT_NEAR(10 * std::log10(noise.nsr(p.statistics, s)), 10 * std::log10(p.simulate(s)), 1.5) << outlier;
  }
}

TEST(ProductNoise, IsZeroWhereTheSignalIsNotKnown) {
  const Product p(1);
  EXPECT_EQ(ProductNoise(p.w, kOut, kIn, 0).nsr(p.statistics, {}), 0);
  EXPECT_EQ(ProductNoise(p.w, kOut, kIn, 1).nsr(TensorStatistics{}, {}), 0);
}

TEST(EqualizingFactors, AreAtLeastOneAndTakeOutTheOutlierOnly) {
  const Product p(60);
  const std::vector<ProductNoise> products{{p.w, kOut, kIn, p.signal()}};
  const auto s = equalizing_factors(p.statistics, products);
  ASSERT_EQ(s.size(), kIn);
  for (size_t k = 0; k < kIn; ++k) EXPECT_GE(s[k], 1) << k;
  EXPECT_GT(s[3], 4);
  EXPECT_LT(p.simulate(s), p.simulate({}) / 2);
}

TEST(EqualizingFactors, AreFloats) {
  const Product p(60);
  for (double s : equalizing_factors(p.statistics, {{p.w, kOut, kIn, p.signal()}})) EXPECT_EQ(s, static_cast<double>(static_cast<float>(s)));
}

TEST(EqualizingFactors, AreNoneWhereThereIsNothingToGain) {
  const Product p(1);
  EXPECT_TRUE(equalizing_factors(p.statistics, {{p.w, kOut, kIn, p.signal()}}).empty());
  EXPECT_TRUE(equalizing_factors(p.statistics, {}).empty());
}

}  // namespace
}  // namespace infopt
