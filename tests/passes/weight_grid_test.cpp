#include "passes/support/weight_grid.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "lib/base/error.h"

namespace infopt {
namespace {

double squared_error(const std::vector<float>& w, const CodedWeights& coded) {
  const auto values = decode(coded);
  double sum = 0;
  for (size_t i = 0; i < w.size(); ++i) sum += static_cast<double>(values[i] - w[i]) * static_cast<double>(values[i] - w[i]);
  return sum;
}

std::vector<float> normal(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> d;
  std::vector<float> w(count);
  for (float& v : w) v = d(random);
  return w;
}

// Scale 7/7 = 1: codes are the weights rounded half to even (NumPy's rint).
TEST(WeightGrid, SymmetricInt4RoundsHalfToEvenAtTheScaleOfTheLargest) {
  const std::vector<float> w{7, -2.5f, 0.5f, 1.5f};
  const CodedWeights coded = round_to_nearest(w, fit_grid(w, 1, 4, {.dtype = DType::I4}, GridFit::Extremes));
  EXPECT_EQ(coded.grid.scales, std::vector<float>{1});
  EXPECT_EQ(coded.codes, (std::vector<int16_t>{7, -2, 0, 2}));
}

// onnxruntime's block-wise asymmetric rule: scale = (max − min)/15 with zero in range, zero point = rint(−min/scale).
TEST(WeightGrid, AsymmetricUint4SpansBothExtremesAndHoldsZeroExactly) {
  const std::vector<float> w{-1, 0, 2, 0.4f};
  const CodedWeights coded = round_to_nearest(w, fit_grid(w, 1, 4, {.dtype = DType::U4, .symmetric = false}, GridFit::Extremes));
  EXPECT_FLOAT_EQ(coded.grid.scales[0], 0.2f);
  EXPECT_EQ(coded.grid.zeros[0], 5);
  EXPECT_EQ(coded.codes, (std::vector<int16_t>{0, 5, 15, 7}));
  EXPECT_EQ(decode(coded)[1], 0);
}

TEST(WeightGrid, BlocksHaveScalesOfTheirOwnAndTheLastMayBeShorter) {
  const std::vector<float> w{7, 1, 14, 2, 70, 700, 70, 7, 7, 7};
  const WeightGrid grid = fit_grid(w, 2, 5, {.dtype = DType::I4, .block = 2}, GridFit::Extremes);
  EXPECT_EQ(grid.blocks, 3);
  EXPECT_EQ(grid.scales, (std::vector<float>{1, 2, 10, 100, 1, 1}));
}

TEST(WeightGrid, LeastSquaresIsNeverWorseThanExtremesAndGainsOnNormalWeights) {
  for (const DType dtype : {DType::I4, DType::U4, DType::I2, DType::U2, DType::I8})
    for (const bool symmetric : {true, false}) {
      if (!symmetric && lowest_code(dtype) < 0) continue;
      const auto w = normal(640, 3);
      const WeightFormat format{.dtype = dtype, .block = 128, .symmetric = symmetric};
      const double extremes = squared_error(w, round_to_nearest(w, fit_grid(w, 5, 128, format, GridFit::Extremes)));
      const double least = squared_error(w, round_to_nearest(w, fit_grid(w, 5, 128, format, GridFit::LeastSquares)));
      EXPECT_LE(least, extremes) << name_of(dtype);
      if (bits_of(dtype) <= 4) {
        EXPECT_LT(least, 0.95 * extremes) << name_of(dtype);
      }
    }
}

TEST(WeightGrid, ImportanceDrawsTheScaleToWhatMatters) {
  std::vector<float> w(32, 0.3f);
  w[0] = 7;
  std::vector<double> importance(32, 1);
  importance[0] = 1e-6;
  const WeightFormat format{.dtype = DType::I4};
  const float plain = fit_grid(w, 1, 32, format, GridFit::LeastSquares).scales[0], weighed = fit_grid(w, 1, 32, format, GridFit::LeastSquares, importance).scales[0];
  EXPECT_LT(weighed, plain);
}

TEST(WeightGrid, AChannelOfZerosHasScaleOne) {
  const std::vector<float> w(8, 0);
  for (const bool symmetric : {true, false}) {
    const CodedWeights coded = round_to_nearest(w, fit_grid(w, 1, 8, {.dtype = DType::U4, .symmetric = symmetric}, GridFit::LeastSquares));
    EXPECT_EQ(coded.grid.scales[0], 1);
    EXPECT_EQ(decode(coded), w);
  }
}

TEST(WeightGrid, RefusesWeightsThatAreNotFinite) {
  const std::vector<float> w{1, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_THROW(fit_grid(w, 1, 2, {}, GridFit::Extremes), Error);
}

}  // namespace
}  // namespace infopt
