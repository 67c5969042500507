// Products of few rows against sums in double, on every instruction set that this processor has.
#include "lib/runtime/cpu/few_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "lib/base/share.h"
#include "lib/runtime/cpu/dnnl_adapter.h"
#include "lib/runtime/cpu/float_tiles.h"

namespace infopt::cpu {
namespace {

constexpr FloatIsa kIsas[] = {FloatIsa::Avx512, FloatIsa::Avx2, FloatIsa::Portable};

class EveryIsa : public ::testing::TestWithParam<FloatIsa> {
 protected:
  void SetUp() override {
    if (!has_float_isa(GetParam())) GTEST_SKIP() << "not on this processor";
    use_float_isa(GetParam());
  }
  void TearDown() override {
    for (const FloatIsa best : kIsas)
      if (has_float_isa(best)) return use_float_isa(best);
  }
};

double activated(const PostActivation& post, double v) {
  switch (post.kind) {
    case PostActivation::Clip: return std::fmin(std::fmax(v, post.low), post.high);
    case PostActivation::Gelu: return v * 0.5 * std::erfc(-v / std::sqrt(2.0));
    case PostActivation::GeluTanh: return 0.5 * v * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (v + 0.044715 * v * v * v)));
    case PostActivation::Silu: return v / (1 + std::exp(-v));
    default: return v;
  }
}

std::vector<float> random_floats(std::mt19937& r, int64_t n, float mean) {
  std::normal_distribution<float> normal(mean, 1);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = normal(r);
  return v;
}

struct Case {
  int64_t rows, depth, columns;
  PostActivation post;
};

void check(const Case& c, std::mt19937& r) {
  SCOPED_TRACE(testing::Message() << c.rows << " x " << c.depth << " x " << c.columns << ", activation " << c.post.kind);
  const auto a = random_floats(r, c.rows * c.depth, 0.1f), b = random_floats(r, c.depth * c.columns, 0), bias = random_floats(r, c.columns, 0);
  const int64_t width = float_tiles().lanes * float_tiles().vectors, panels = (c.columns + width - 1) / width, stride = c.depth * width + 32;
  ASSERT_TRUE(takes_few_rows(c.rows, width));
  std::vector<float> packed(static_cast<size_t>(panels * stride), std::nanf(""));
  for (int64_t p = 0; p < panels; ++p)
    for (int64_t k = 0; k < c.depth; ++k)
      for (int64_t j = 0; j < width; ++j) packed[static_cast<size_t>(p * stride + k * width + j)] = p * width + j < c.columns ? b[static_cast<size_t>(k * c.columns + p * width + j)] : 0.0f;
  std::vector<float> y[2];
  for (const int threads : {1, 3}) {
    RunThreads run(threads);
    auto& to = y[threads > 1];
    to.assign(static_cast<size_t>(c.rows * c.columns), 7.0f);
    multiply_few_rows({a.data(), c.rows, c.depth, c.columns, {packed.data(), width, stride}, bias.data(), c.post, to.data()});
  }
  ASSERT_EQ(std::memcmp(y[0].data(), y[1].data(), y[0].size() * sizeof(float)), 0);
  for (int64_t i = 0; i < c.rows; ++i)
    for (int64_t j = 0; j < c.columns; ++j) {
      double sum = bias[static_cast<size_t>(j)], size = 1;
      for (int64_t k = 0; k < c.depth; ++k) {
        const double term = static_cast<double>(a[static_cast<size_t>(i * c.depth + k)]) * b[static_cast<size_t>(k * c.columns + j)];
        sum += term;
        size += std::fabs(term);
      }
      ASSERT_NEAR(y[0][static_cast<size_t>(i * c.columns + j)], activated(c.post, sum), 1e-6 * size) << i << "," << j;
    }
}

TEST_P(EveryIsa, MultipliesEveryShapeWithBiasAndActivation) {
  std::mt19937 r(3);
  const PostActivation posts[] = {{}, {PostActivation::Clip, -0.5f, 2}, {PostActivation::Gelu}, {PostActivation::GeluTanh}, {PostActivation::Silu}};
  int turn = 0;
  for (int64_t rows = 1; rows <= float_tiles().rows; ++rows)
    for (const auto& [depth, columns] : {std::pair<int64_t, int64_t>{1, 1}, {7, 64}, {33, 65}, {300, 130}, {2500, 70}, {512, 1000}}) check({rows, depth, columns, posts[turn++ % 5]}, r);
}

TEST_P(EveryIsa, LongSumsDontGatherTheirRoundings) {
  constexpr int64_t kLong = 100000;
  const int64_t width = float_tiles().lanes * float_tiles().vectors;
  const std::vector<float> a(kLong, 0.1f), packed(static_cast<size_t>(kLong * width), 0.3f);
  float y = 0;
  multiply_few_rows({a.data(), 1, kLong, 1, {packed.data(), width, kLong * width}, nullptr, {}, &y});
  EXPECT_NEAR(y, kLong * static_cast<double>(0.1f) * static_cast<double>(0.3f), 0.03);  // one after the other: 2.4 off
}

INSTANTIATE_TEST_SUITE_P(FewRows, EveryIsa, ::testing::ValuesIn(kIsas));

TEST(FewRows, ReadWhateverPanelsTheLibraryPacked) {
  std::mt19937 r(4);
  for (int64_t rows = 1; rows <= 8; ++rows)
    for (const auto& [depth, columns] : {std::pair<int64_t, int64_t>{17, 10}, {64, 16}, {100, 33}, {129, 48}, {333, 200}})
      for (const bool transposed : {false, true}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << depth << " x " << columns << (transposed ? ", transposed" : ""));
        Tensor a(DType::F32, {rows, depth}), b(DType::F32, transposed ? Shape{columns, depth} : Shape{depth, columns}), bias(DType::F32, {1, columns}), y(DType::F32, {rows, columns});
        for (Tensor* t : {&a, &b, &bias}) {
          const auto values = random_floats(r, t->size(), 0);
          std::copy(values.begin(), values.end(), t->mutable_data<float>());
        }
        const Product product({PostActivation::Clip, -8, 9});
        product.run(a, false, b, transposed, true, &bias, y);
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t j = 0; j < columns; ++j) {
            double sum = bias.data<float>()[j];
            for (int64_t k = 0; k < depth; ++k) sum += static_cast<double>(a.data<float>()[i * depth + k]) * b.data<float>()[transposed ? j * depth + k : k * columns + j];
            ASSERT_NEAR(y.data<float>()[i * columns + j], std::clamp(sum, -8.0, 9.0), 1e-4) << i << "," << j;
          }
      }
}

}  // namespace
}  // namespace infopt::cpu
