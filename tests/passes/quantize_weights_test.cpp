#include "passes/support/quantize_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "lib/base/error.h"

namespace infopt {
namespace {

std::vector<float> normal(size_t count, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::vector<float> out(count);
  for (float& f : out) {  // a sum of uniform numbers: the same with every library
    f = -6;
    for (int i = 0; i < 12; ++i) f += static_cast<float>(random() >> 8) / 16777216.0f;
  }
  return out;
}

Layer layer(int64_t out, int64_t in, int64_t taps, int64_t groups = 1) {
  Layer l;
  l.out = out, l.in = in, l.taps = taps, l.groups = groups, l.convolution = true;
  return l;
}

TEST(QuantizeWeights, ScaleIsTheLargestMagnitudeOver127) {
  const auto q = quantize_weights(layer(2, 3, 1), {0.5f, -2.54f, 1, 12.7f, 3, -4}, true);
  EXPECT_EQ(q.scales, (std::vector<float>{2.54f / 127.0f, 12.7f / 127.0f}));
  // numpy: np.rint(w / (np.abs(w).max(1, keepdims=True) / 127))
  EXPECT_EQ(q.codes, (std::vector<int8_t>{25, -127, 50, 127, 30, -40}));
}

TEST(QuantizeWeights, OneScaleForAllChannels) {
  const auto q = quantize_weights(layer(2, 2, 1), {1, -2, 254, 0.5f}, false);
  EXPECT_EQ(q.scales, std::vector<float>{2});
  EXPECT_EQ(q.codes, (std::vector<int8_t>{0, -1, 127, 0}));  // halves to even
}

TEST(QuantizeWeights, CodesOfProductsAreTheNearest) {
  const auto w = normal(64 * 40);
  const auto q = quantize_weights(layer(64, 40, 1), w, true);
  for (size_t i = 0; i < w.size(); ++i) {
    const double scale = static_cast<double>(q.scales[i / 40]);
    EXPECT_LE(std::fabs(q.codes[i] * scale - static_cast<double>(w[i])), scale * 0.5001) << i;
    EXPECT_GE(q.codes[i], -127);
  }
}

TEST(QuantizeWeights, KernelsKeepTheirSumToHalfAStepAndNoCodeMovesByMoreThanOne) {
  constexpr size_t kTaps = 25;
  const auto w = normal(16 * 4 * kTaps, 7);
  const auto q = quantize_weights(layer(16, 4, kTaps), w, true);
  for (size_t kernel = 0; kernel < w.size() / kTaps; ++kernel) {
    const double scale = static_cast<double>(q.scales[kernel / 4]);
    double steps = 0, codes = 0;
    for (size_t i = kernel * kTaps; i < (kernel + 1) * kTaps; ++i) {
      steps += static_cast<double>(w[i]) / scale, codes += q.codes[i];
      EXPECT_LT(std::fabs(q.codes[i] - static_cast<double>(w[i]) / scale), 1.0 + 1e-6) << i;
    }
    EXPECT_LE(std::fabs(steps - codes), 0.5 + 1e-6) << "kernel " << kernel;
  }
}

TEST(QuantizeWeights, KernelsOfOnlyExtremesStayInRange) {
  std::vector<float> w(9, 1.0f);
  w[0] = 0.5f;  // 63.5 steps
  const auto q = quantize_weights(layer(1, 1, 9), w, true);
  for (size_t i = 1; i < 9; ++i) EXPECT_EQ(q.codes[i], 127);
}

TEST(QuantizeWeights, ChannelOfZerosHasScaleOne) {
  const auto q = quantize_weights(layer(2, 2, 1), {0, 0, 1, -1}, true);
  EXPECT_EQ(q.scales[0], 1.0f);
  EXPECT_EQ(q.codes, (std::vector<int8_t>{0, 0, 127, -127}));
}

TEST(QuantizeWeights, WeightsTooSmallForAScaleBecomeZero) {
  const auto q = quantize_weights(layer(1, 2, 1), {1e-45f, 0}, true);
  EXPECT_GT(q.scales[0], 0);
  EXPECT_LE(std::abs(q.codes[0]), 127);
}

TEST(QuantizeWeights, NanAndInfinityAreErrors) {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    try {
      quantize_weights(layer(1, 2, 1), {1, bad}, true);
      ADD_FAILURE() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Malformed);
    }
  }
}

TEST(QuantizeWeights, SignalAndNoiseAreSumsOfSquares) {
  const auto q = quantize_weights(layer(1, 2, 1), {127, 0.25f}, true);
  EXPECT_DOUBLE_EQ(q.signal, 127.0 * 127 + 0.0625);
  EXPECT_DOUBLE_EQ(q.noise, 0.0625);
}

TEST(OutputShift, IsTheCodesErrorTimesTheInputsMeanInEachGroup) {
  const std::vector<float> w{127, 0.25f, 0.4f, 127, 127, -0.25f, 127, 0.5f};  // 4 outputs in 2 groups of 2 inputs, scale 1
  const Layer l = layer(4, 2, 1, 2);
  const auto q = quantize_weights(l, w, true);
  const auto shift = output_shift(l, w, q, {.means = {1, 2, 10, 20}});
  const std::vector<double> expected{-0.5, -0.4, 5, -10};
  ASSERT_EQ(shift.size(), expected.size());
  for (size_t i = 0; i < shift.size(); ++i) EXPECT_NEAR(shift[i], expected[i], 1e-6) << i;
}

TEST(OutputShift, CountsTapsByTheirShare) {
  const std::vector<float> w{127, 0.25f, 0.5f};  // scale 1: codes 127, 0, 0, of which one moves to keep the sum unless a tap is rare
  const Layer l = layer(1, 1, 3);
  const LayerInputs inputs{.means = {4}, .shares = {0.5, 1, 0.5}};
  const auto q = quantize_weights(l, w, true, inputs.shares);
  EXPECT_EQ(q.codes, (std::vector<int8_t>{127, 0, 0}));
  EXPECT_EQ(quantize_weights(l, w, true).codes, (std::vector<int8_t>{127, 0, 1}));
  EXPECT_NEAR(output_shift(l, w, q, inputs)[0], -0.25 * 4 - 0.5 * 4 * 0.5, 1e-9);
}

}  // namespace
}  // namespace infopt
