#include "passes/support/gptq.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "lib/base/error.h"
#include "passes/support/dense.h"

namespace infopt {
namespace {

// All of tests/passes/gptq_reference.py.
const std::vector<float> kH{100, 197, 19, -58, 18, -8, 0, -17, 197, 445, 47, -131, 28, -5, -9, -33, 19, 47, 85, -73, -11, -4, -16, 23, -58, -131, -73, 148, -26, 1, 23, -22,
                            18, 28, -11, -26, 81, 17, -1, -39, -8, -5, -4, 1, 17, 53, 13, -21, 0, -9, -16, 23, -1, 13, 67, -29, -17, -33, 23, -22, -39, -21, -29, 92};
const std::vector<float> kWeights{0.4f, -1.9f, 1.5f, 2.6f, -1.6f, 0.3f, -2.8f, -1.9f, -0.7f, 2.3f, 2.9f, 0.9f, 0.5f, 0.4f, -2.7f, -0.8f, 2.9f, -0.5f, -1.7f, -1.6f, 1.3f, -2.8f, 2.9f, 2.3f};
const std::vector<int16_t> kInOrder{1, -5, 4, 6, -4, 1, -7, -5, -2, 6, 7, 2, 1, 1, -6, -2, 7, -1, -4, -4, 3, -7, 7, 5};
const std::vector<int16_t> kByEnergy{1, -5, 3, 6, -4, 1, -7, -5, -3, 6, 7, 2, 1, 1, -6, -2, 7, -1, -4, -4, 3, -7, 7, 6};
const std::vector<float> kSmallH{27, 73, -5, 0, -7, -16, 73, 240, -14, 20, -10, -40, -5, -14, 35, -54, -3, 3, 0, 20, -54, 114, 0, 8, -7, -10, -3, 0, 46, 1, -16, -40, 3, 8, 1, 51};
const std::vector<float> kSmallWeights{-0.1f, 1.8f, 2.8f, 0.1f, -2.5f, 1.4f, -1.6f, -1.7f, -1.9f, -1.8f, 2.5f, -0.8f, -2.4f, -2, -0.6f, -0.9f, -1.2f, 2.7f, 2.2f, 0.4f, 3, -1, -2.2f, -1.4f};
const std::vector<double> kLeast{141.499, 112.55, 92.5953, 222.662};

const std::vector<double> kLeastOfAnyScale{48.0228, 47.8886, 75.0234, 38.2306};  // of positive ones 52.6167 in the second row

const WeightFormat kChannels{.dtype = DType::I4};

struct Problem {
  int64_t k, out;
  std::vector<float> h, w;
  /// Inputs of correlated channels, of unlike sizes.
  Problem(int64_t columns, int64_t rows, unsigned seed) : k(columns), out(rows), h(static_cast<size_t>(k * k), 0.0f), w(static_cast<size_t>(k * out)) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const int64_t places = 3 * k;
    std::vector<float> x(static_cast<size_t>(places * k));
    for (int64_t p = 0; p < places; ++p) {
      const float common = normal(random);
      for (int64_t i = 0; i < k; ++i) x[static_cast<size_t>(p * k + i)] = (normal(random) + common) * (i % 7 == 0 ? 4.0f : 1.0f);
    }
    for (float& v : w) v = normal(random);
    add_product(k, k, places, 1, {x.data(), 1, k}, {x.data(), k, 1}, h.data(), k);
  }
  double error(const CodedWeights& codes) const { return quadratic_error(w, decode(codes), out, h); }
  double nearest(const WeightFormat& format, GridFit fit) const { return error(round_to_nearest(w, fit_grid(w, out, k, format, fit))); }
};

std::vector<float> damped_small() {
  std::vector<float> damped = kSmallH;
  float mean = 0;
  for (size_t i = 0; i < 6; ++i) mean += kSmallH[i * 7] / 6;
  for (size_t i = 0; i < 6; ++i) damped[i * 7] += 0.01f * mean;
  return damped;
}

TEST(Gptq, GivesThePapersCodesInEitherOrder) {
  GptqOptions options{.act_order = false, .damp = 0.01, .fit = GridFit::Extremes, .sweeps = 0};
  EXPECT_EQ(gptq(kWeights, 3, kH, kChannels, options).codes, kInOrder);
  options.act_order = true;
  EXPECT_EQ(gptq(kWeights, 3, kH, kChannels, options).codes, kByEnergy);
}

TEST(Gptq, TheDescentComesCloseToTheBestCodesThereAre) {
  const GptqOptions options{.damp = 0.01, .fit = GridFit::Extremes};
  const std::vector<float> damped = damped_small();
  double sum = 0, least = 0;
  for (int64_t row = 0; row < 4; ++row) {
    const std::vector<float> w(kSmallWeights.begin() + row * 6, kSmallWeights.begin() + (row + 1) * 6);
    const double error = quadratic_error(w, decode(gptq(w, 1, kSmallH, {.dtype = DType::I2}, options)), 1, damped);
    EXPECT_GE(error, kLeast[static_cast<size_t>(row)] * 0.9999);
    sum += error, least += kLeast[static_cast<size_t>(row)];
  }
  EXPECT_LT(sum, least * 1.1);
}

TEST(Gptq, ScalesOfEitherSignComeCloseToTheBestThereAre) {
  double sum = 0, positive = 0, least = 0;
  for (int64_t row = 0; row < 4; ++row) {
    const std::vector<float> w(kSmallWeights.begin() + row * 6, kSmallWeights.begin() + (row + 1) * 6);
    const auto error = [&](bool signs) { return quadratic_error(w, decode(gptq(w, 1, kSmallH, {.dtype = DType::I2, .signs = signs}, {.damp = 0.01})), 1, damped_small()); };
    EXPECT_GE(error(true), kLeastOfAnyScale[static_cast<size_t>(row)] * 0.9999);
    sum += error(true), positive += error(false), least += kLeastOfAnyScale[static_cast<size_t>(row)];
  }
  EXPECT_LT(sum, least * 1.3);
  EXPECT_LE(sum, positive);
}

TEST(Gptq, NegativeScalesGainOnSymmetricGridsOfFewCodes) {
  const Problem p(200, 70, 3);
  for (const auto& [type, block, left] : {std::tuple{DType::I4, 32, 0.93}, {DType::I4, 0, 0.99}, {DType::I2, 32, 0.98}})
    EXPECT_LT(p.error(gptq(p.w, p.out, p.h, {type, block, true, true})), left * p.error(gptq(p.w, p.out, p.h, {type, block}))) << bits_of(type) << " bits, block " << block;
}

TEST(Gptq, BeatsRoundingToNearestOnEveryGrid) {
  const Problem p(200, 70, 3);
  for (const WeightFormat& format : {WeightFormat{DType::I4, 32}, WeightFormat{DType::U4, 32, false}, WeightFormat{DType::I4, 64}, WeightFormat{DType::I4, 0}, WeightFormat{DType::U4, 128, false},
                                     WeightFormat{DType::I2, 32}, WeightFormat{DType::I8, 0}, WeightFormat{DType::I4, -1}})
    for (GridFit fit : {GridFit::Extremes, GridFit::LeastSquares}) {
      const double alone = p.error(gptq(p.w, p.out, p.h, format, {.fit = fit, .sweeps = 0})), descended = p.error(gptq(p.w, p.out, p.h, format, {.fit = fit}));
      EXPECT_LT(alone, 0.85 * p.nearest(format, fit)) << bits_of(format.dtype) << " bits, block " << format.block;
      EXPECT_LT(descended, alone) << bits_of(format.dtype) << " bits, block " << format.block;
    }
}

TEST(Gptq, SearchesScalesAloneWhereCodesAreTheNearest) {
  const Problem p(200, 70, 3);
  for (const WeightFormat& format : {WeightFormat{DType::I4, 32}, WeightFormat{DType::U4, 32, false}, WeightFormat{DType::I4, 0}}) {
    const CodedWeights c = gptq(p.w, p.out, p.h, format, {.nearest = true});
    EXPECT_EQ(c.codes, round_to_nearest(p.w, c.grid).codes);
    EXPECT_LT(p.error(c), p.nearest(format, GridFit::LeastSquares) * (format.block ? 0.95 : 1.0));
  }
}

TEST(Gptq, KeepsCodesAndZeroPointsInTheirRange) {
  const Problem p(50, 20, 4);  // the last block is of 18
  const CodedWeights c = gptq(p.w, p.out, p.h, {DType::U4, 32, false});
  EXPECT_EQ(c.grid.blocks, 2);
  EXPECT_EQ(c.grid.scales.size(), 40u);
  for (int16_t code : c.codes) EXPECT_TRUE(code >= 0 && code <= 15);
  for (int32_t zero : c.grid.zeros) EXPECT_TRUE(zero >= 0 && zero <= 15);
}

TEST(Gptq, GivesTheSameBitsForAnyNumberOfThreads) {
  const Problem p(150, 200, 5);
  const CodedWeights one = gptq(p.w, p.out, p.h, {DType::I4, 32}, {.threads = 1}), three = gptq(p.w, p.out, p.h, {DType::I4, 32}, {.threads = 3});
  EXPECT_EQ(one.codes, three.codes);
  EXPECT_EQ(one.grid.scales, three.grid.scales);
}

TEST(Gptq, InputsThatAreZeroOrAlikeDoNoHarm) {
  Problem p(64, 8, 6);
  std::fill(p.h.begin(), p.h.end(), 0.0f);
  EXPECT_EQ(gptq(p.w, p.out, p.h, {DType::I4, 32}, {.fit = GridFit::Extremes}).codes, round_to_nearest(p.w, fit_grid(p.w, p.out, p.k, {DType::I4, 32}, GridFit::Extremes)).codes);
  std::fill(p.h.begin(), p.h.end(), 1.0f);  // of rank 1
  EXPECT_LT(p.error(gptq(p.w, p.out, p.h, {DType::I4, 32})), 0.1 * p.nearest({DType::I4, 32}, GridFit::LeastSquares));
}

TEST(Gptq, RefusesWhatIsNotFinite) {
  Problem p(16, 2, 7);
  p.h[0] = NAN;
  EXPECT_THROW(gptq(p.w, p.out, p.h, kChannels), Error);
}

TEST(Dense, FactorAndSolutionUndoTheProduct) {
  const Problem p(131, 67, 8);
  std::vector<float> l = p.h, product(p.w.size(), 0.0f);
  ASSERT_TRUE(cholesky(l.data(), p.k, 2));
  add_product(p.out, p.k, p.k, 1, {p.w.data(), p.k, 1}, {p.h.data(), p.k, 1}, product.data(), p.k, 2);
  solve_rows(product.data(), p.out, l.data(), p.k, 2);
  for (size_t i = 0; i < product.size(); ++i) EXPECT_NEAR(product[i], p.w[i], 2e-3);
  std::vector<float> indefinite{1, 2, 2, 1};
  EXPECT_FALSE(cholesky(indefinite.data(), 2));
}

TEST(Dense, AGramIsTheLowerTriangleOfTheProduct) {
  const Problem p(70, 40, 9);
  std::vector<float> gram(static_cast<size_t>(p.k * p.k), 0.0f);
  add_gram(p.w.data(), p.out, p.k, gram.data(), 2);
  for (int64_t i = 0; i < p.k; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (int64_t r = 0; r < p.out; ++r) sum += static_cast<double>(p.w[static_cast<size_t>(r * p.k + i)]) * static_cast<double>(p.w[static_cast<size_t>(r * p.k + j)]);
      EXPECT_NEAR(gram[static_cast<size_t>(i * p.k + j)], sum, 1e-4);
    }
}

}  // namespace
}  // namespace infopt
