// The error bounds that lib/base/float_math.h states, against the C library in double; and that a value's bits don't depend on its place.
#include "lib/base/float_math.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "lib/base/dtype.h"
#include "lib/base/vector_math.h"

namespace infopt {
namespace {

struct Case {
  const char* name;
  float (*function)(float);
  double (*reference)(double);
  float low, high;
  double relative, absolute;
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double softplus(double x) { return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x))); }
double gelu(double x) { return 0.5 * x * std::erfc(-x * std::sqrt(0.5)); }
double mish(double x) { return x * std::tanh(softplus(x)); }

const Case kCases[] = {
    {"exp", [](float x) { return exp_f(x); }, std::exp, -87.3f, 88.7f, 4e-7, 0},
    {"exp of the subnormal", [](float x) { return exp_f(x); }, std::exp, -110.0f, -87.3f, 4e-7, 1.5e-45},
    {"expm1", [](float x) { return expm1_f(x); }, std::expm1, -20.0f, 20.0f, 4e-7, 0},
    {"expm1 near 0", [](float x) { return expm1_f(x); }, std::expm1, -1e-3f, 1e-3f, 4e-7, 0},
    {"log", [](float x) { return log_f(x); }, std::log, 1e-6f, 100.0f, 4e-7, 0},
    {"log near 1", [](float x) { return log_f(x); }, std::log, 0.9f, 1.1f, 4e-7, 0},
    {"log of the large", [](float x) { return log_f(x); }, std::log, 1e30f, 3e38f, 4e-7, 0},
    {"log of the subnormal", [](float x) { return log_f(x); }, std::log, 1e-44f, 1e-38f, 4e-7, 0},
    {"erf", [](float x) { return erf_f(x); }, std::erf, -6.0f, 6.0f, 4e-7, 0},
    {"erf near 0", [](float x) { return erf_f(x); }, std::erf, -1e-3f, 1e-3f, 4e-7, 0},
    {"tanh", [](float x) { return tanh_f(x); }, std::tanh, -12.0f, 12.0f, 4e-7, 0},
    {"tanh near 0", [](float x) { return tanh_f(x); }, std::tanh, -1e-3f, 1e-3f, 4e-7, 0},
    {"sigmoid", [](float x) { return sigmoid_f(x); }, sigmoid, -87.0f, 87.0f, 5e-7, 0},
    {"softplus", [](float x) { return softplus_f(x); }, softplus, -80.0f, 80.0f, 6e-7, 0},
    {"gelu", [](float x) { return gelu_f(x); }, gelu, -8.0f, 8.0f, 1e-6, 5e-8},
    {"mish", [](float x) { return mish_f(x); }, mish, -40.0f, 40.0f, 1e-6, 0},
};

TEST(FloatMath, StaysWithinItsErrorBounds) {
  for (const Case& c : kCases) {
    double worst = 0;
    const int64_t steps = 400000;
    for (int64_t i = 0; i <= steps; ++i) {
      const float x = c.low + (c.high - c.low) * (static_cast<float>(i) / static_cast<float>(steps));
      const double expected = c.reference(x), error = std::fabs(static_cast<double>(c.function(x)) - expected);
      const double beyond = std::fmax(0, error - c.absolute) / std::fmax(std::fabs(expected), 1e-300);
      worst = std::fmax(worst, error == 0 ? 0 : beyond);
    }
    EXPECT_LE(worst, c.relative) << c.name;
  }
}

TEST(FloatMath, TreatsTheSpecialValuesAsTheLibraryDoes) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(exp_f(infinity), infinity);
  EXPECT_EQ(exp_f(-infinity), 0.0f);
  EXPECT_EQ(exp_f(200.0f), infinity);
  EXPECT_EQ(log_f(0.0f), -infinity);
  EXPECT_EQ(log_f(infinity), infinity);
  EXPECT_TRUE(std::isnan(log_f(-1.0f)));
  EXPECT_EQ(erf_f(infinity), 1.0f);
  EXPECT_EQ(erf_f(-infinity), -1.0f);
  EXPECT_EQ(tanh_f(infinity), 1.0f);
  EXPECT_EQ(tanh_f(-infinity), -1.0f);
  EXPECT_EQ(sigmoid_f(-infinity), 0.0f);
  EXPECT_EQ(sigmoid_f(infinity), 1.0f);
  EXPECT_EQ(softplus_f(infinity), infinity);
  EXPECT_EQ(gelu_f(-infinity), 0.0f);
  EXPECT_EQ(gelu_f(infinity), infinity);
  EXPECT_EQ(mish_f(-infinity), 0.0f);
  EXPECT_EQ(mish_f(infinity), infinity);
  for (const Case& c : kCases) EXPECT_TRUE(std::isnan(c.function(nan))) << c.name;
}

TEST(FloatMath, RoundsHalfToEven) {
  for (float x : {-2.5f, -1.5f, -0.5f, -0.4f, 0.0f, 0.5f, 1.5f, 2.5f, 3.49f, 8388607.5f, 8388609.0f, 1e20f}) {
    EXPECT_EQ(round_even_f(x), std::nearbyint(x)) << x;
    EXPECT_EQ(std::signbit(round_even_f(x)), std::signbit(std::nearbyint(x))) << x;
  }
}

TEST(FloatMath, ConvertsEveryHalfAndBack) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const half h{static_cast<uint16_t>(bits)};
    const float expected = to_float(h), actual = half_to_float_f(h.bits);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(actual)) << bits;
      continue;
    }
    EXPECT_EQ(actual, expected) << bits;
    EXPECT_EQ(float_to_half_f(actual), h.bits) << bits;
    for (float nudge : {0.99951f, 1.00024414f, 1.00049f, 1.0007324f}) EXPECT_EQ(float_to_half_f(actual * nudge), to_half(actual * nudge).bits) << bits;
    const bfloat16 b{h.bits};
    EXPECT_EQ(float_to_bfloat16_f(bfloat16_to_float_f(b.bits) * 1.001f), to_bfloat16(to_float(b) * 1.001f).bits) << bits;
  }
}

TEST(VectorMath, SumsDontDependOnAlignment) {
  std::vector<float> memory(1200);
  for (size_t i = 0; i < memory.size(); ++i) memory[i] = std::sin(static_cast<float>(i)) * 100.0f;
  for (int64_t n : {0, 1, 15, 16, 17, 100, 1000}) {
    std::vector<float> aligned(memory.begin(), memory.begin() + n);
    const float expected = sum(aligned.data(), n);
    for (size_t shift = 1; shift < 20; ++shift) {
      std::vector<float> moved(shift);
      moved.insert(moved.end(), aligned.begin(), aligned.end());
      EXPECT_EQ(sum(moved.data() + shift, n), expected);
    }
    double exact = 0;
    for (float v : aligned) exact += v;
    EXPECT_NEAR(expected, exact, 1e-3);
  }
}

TEST(VectorMath, ExponentialsDontDependOnTheirPlace) {
  std::vector<float> x(97), y(97);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i) * 0.37f - 20.0f;
  exp_and_sum(x.data(), y.data(), 97, 0.0f);
  for (size_t i = 0; i < x.size(); ++i) {
    float alone = 0;
    exp_and_sum(&x[i], &alone, 1, 0.0f);
    EXPECT_EQ(std::memcmp(&alone, &y[i], sizeof alone), 0) << i;
  }
}

TEST(VectorMath, ExtremesShowNaN) {
  std::vector<float> x(40, 1.0f);
  EXPECT_EQ(max_of(x.data(), 40), 1.0f);
  x[33] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(max_of(x.data(), 40)));
  EXPECT_TRUE(std::isnan(min_of(x.data(), 40)));
  EXPECT_EQ(max_of(x.data(), 0), -std::numeric_limits<float>::infinity());
}

}  // namespace
}  // namespace infopt
