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

// ml_dtypes 0.6.0: s = np.float32(np.abs(w).max() / 448), (w / s).astype(ml_dtypes.float8_e4m3fn).view(np.uint8) and its values times s; 57344 and float8_e5m2.
TEST(WeightGrid, FloatsAreTheirBitsRoundedHalfToEven) {
  const std::vector<float> w{0.5f, -2.54f, 1, 0.3f};
  const CodedWeights e4m3 = round_to_nearest(w, fit_grid(w, 1, 4, {.dtype = DType::F8E4M3FN}, GridFit::Extremes));
  EXPECT_EQ(e4m3.grid.scales, std::vector<float>{0.0056696427054703236f});
  EXPECT_EQ(e4m3.codes, (std::vector<int16_t>{107, 254, 115, 101}));
  const CodedWeights e5m2 = round_to_nearest(w, fit_grid(w, 1, 4, {.dtype = DType::F8E5M2}, GridFit::Extremes));
  EXPECT_EQ(e5m2.codes, (std::vector<int16_t>{114, 251, 118, 111}));
  EXPECT_EQ(CodeSpacing::of(DType::F8E4M3FN).nearest(17.0f), 16);  // 16 and 18 are as near
  EXPECT_EQ(CodeSpacing::of(DType::F8E4M3FN).nearest(19.0f), 20);
  EXPECT_EQ(CodeSpacing::of(DType::F8E4M3FN).nearest(0x1p-10f * 3), 0x1p-9f * 2);  // among the subnormal ones
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

TEST(WeightGrid, ANegativeScaleGivesTheLowestCodeToTheLargestWeight) {
  WeightFormat format{.dtype = DType::I4};
  const std::vector<float> w{4, -3.5f, 1.5f, 0.5f, -2, 0};
  EXPECT_GT(squared_error(w, round_to_nearest(w, fit_grid(w, 1, 6, format, GridFit::LeastSquares))), 0);
  format.signs = true;
  const CodedWeights coded = round_to_nearest(w, fit_grid(w, 1, 6, format, GridFit::LeastSquares));
  EXPECT_EQ(coded.grid.scales[0], -0.5f);
  EXPECT_EQ(coded.codes, (std::vector<int16_t>{-8, 7, -3, -1, 4, 0}));
  EXPECT_GT(fit_grid(w, 1, 6, {.dtype = DType::I8, .signs = true}, GridFit::LeastSquares).scales[0], 0);  // whose codes have counterparts
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
