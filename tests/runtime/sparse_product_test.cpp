// Products without the zeros of their weights against sums in double, on every instruction set that this processor has; the plans that use them.
#include "lib/runtime/cpu/sparse_product.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "lib/base/share.h"
#include "lib/runtime/cpu/float_tiles.h"
#include "lib/runtime/cpu/sparse_tiles.h"
#include "tests/runtime/fusion_harness.h"

namespace infopt::test {
namespace {

using cpu::FloatIsa;
using cpu::SparseForm;
using cpu::SparseProduct;

constexpr FloatIsa kIsas[] = {FloatIsa::Avx512, FloatIsa::Avx2};
constexpr SparseForm kForms[] = {SparseForm::Panels, SparseForm::Lists, SparseForm::Tables};

/// So large a share of zeros: anywhere, two of four inputs, or 16 outputs at once.
enum class Pattern { Anywhere, TwoOfFour, Blocks };

Tensor sparse_weights(std::mt19937& r, int64_t depth, int64_t columns, bool transposed, double zeros, Pattern pattern, bool one_pixel = false) {
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<double> share(0, 1);
  Shape shape = transposed ? Shape{columns, depth} : Shape{depth, columns};
  if (one_pixel) shape.insert(shape.end(), {1, 1});
  Tensor w = Tensor::zeros(DType::F32, shape);
  std::vector<bool> block(static_cast<size_t>(columns / 16 + 1));
  for (int64_t k = 0; k < depth; ++k) {
    for (size_t i = 0; i < block.size(); ++i) block[i] = share(r) < zeros;
    for (int64_t n = 0; n < columns; ++n) {
      const bool zero = pattern == Pattern::Anywhere ? share(r) < zeros : pattern == Pattern::Blocks ? block[static_cast<size_t>(n / 16)] : (k + n) % 4 < 2;
      if (!zero) w.mutable_data<float>()[transposed ? n * depth + k : k * columns + n] = normal(r);
    }
  }
  return w;
}

std::vector<float> random_floats(std::mt19937& r, int64_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = normal(r);
  return v;
}

double activated(const PostActivation& post, double v) {
  switch (post.kind) {
    case PostActivation::Clip: return std::fmin(std::fmax(v, static_cast<double>(post.low)), static_cast<double>(post.high));
    case PostActivation::Gelu: return v * 0.5 * std::erfc(-v / std::sqrt(2.0));
    case PostActivation::HardSwish: return v * std::fmin(std::fmax(v / 6 + 0.5, 0.0), 1.0);
    default: return v;
  }
}

class SparseIsa : public ::testing::TestWithParam<FloatIsa> {
 protected:
  void SetUp() override {
    if (!cpu::has_float_isa(GetParam())) GTEST_SKIP() << "not on this processor";
    cpu::use_float_isa(GetParam());
  }
  void TearDown() override {
    for (const FloatIsa best : {FloatIsa::Avx512, FloatIsa::Avx2, FloatIsa::Portable})
      if (cpu::has_float_isa(best)) return cpu::use_float_isa(best);
  }
};

struct Case {
  int64_t rows, depth, columns;
  bool transposed, bias, adds;
  double zeros;
  Pattern pattern;
  PostActivation post;
};

void check(const Case& c, std::mt19937& r) {
  const Tensor w = sparse_weights(r, c.depth, c.columns, c.transposed, c.zeros, c.pattern);
  const auto x = random_floats(r, c.rows * c.depth), bias = random_floats(r, c.columns), before = random_floats(r, c.rows * c.columns);
  const SparseProduct product(w, c.transposed, {});
  for (const SparseForm form : kForms) {
    if (form == SparseForm::Tables && cpu::sparse_tiles()->table_rows == 0) continue;
    SCOPED_TRACE(testing::Message() << c.rows << " x " << c.depth << " x " << c.columns << (c.transposed ? " transposed" : "") << ", " << c.zeros << " zeros, pattern " << static_cast<int>(c.pattern)
                                    << ", form " << static_cast<int>(form) << (c.adds ? ", added" : ""));
    std::vector<float> y[2];
    for (const int threads : {1, 3}) {
      RunThreads run(threads);
      auto& to = y[threads > 1];
      to = before;
      product.run_as(form, x.data(), c.rows, c.bias ? bias.data() : nullptr, c.post, c.adds, to.data());
    }
    ASSERT_EQ(std::memcmp(y[0].data(), y[1].data(), y[0].size() * sizeof(float)), 0);
    for (int64_t i = 0; i < c.rows; ++i)
      for (int64_t j = 0; j < c.columns; ++j) {
        const auto at = static_cast<size_t>(i * c.columns + j);
        double sum = (c.bias ? bias[static_cast<size_t>(j)] : 0.0) + (c.adds ? before[at] : 0.0), size = 1;
        for (int64_t k = 0; k < c.depth; ++k) {
          const double term = static_cast<double>(x[static_cast<size_t>(i * c.depth + k)]) * static_cast<double>(w.data<float>()[c.transposed ? j * c.depth + k : k * c.columns + j]);
          sum += term;
          size += std::fabs(term);
        }
        ASSERT_NEAR(y[0][at], activated(c.post, sum), 1e-6 * size) << i << "," << j;
      }
    // One row more or less changes no bit of the others.
    if (c.rows > 1) {
      std::vector<float> less(before.begin(), before.end());
      product.run_as(form, x.data(), c.rows - 1, c.bias ? bias.data() : nullptr, c.post, c.adds, less.data());
      ASSERT_EQ(std::memcmp(less.data(), y[0].data(), static_cast<size_t>((c.rows - 1) * c.columns) * sizeof(float)), 0);
    }
  }
  ASSERT_EQ(std::memcmp(product.weights().data<float>(), w.data<float>(), w.bytes()), 0);
}

TEST_P(SparseIsa, AgreesWithDenseSumsOverRandomShapesPatternsAndShares) {
  std::mt19937 r(11);
  const PostActivation posts[] = {{}, {PostActivation::Clip, -0.5f, 2}, {PostActivation::Gelu}, {PostActivation::HardSwish}};
  const auto pick = [&](int64_t from, int64_t to) { return std::uniform_int_distribution<int64_t>(from, to)(r); };
  for (int i = 0; i < 150; ++i) {
    const int64_t rows = i % 3 == 0 ? pick(1, 8) : i % 3 == 1 ? pick(1, 70) : pick(60, 150), most = rows > 70 ? 80 : 200;
    check({rows, pick(1, most), pick(1, most), pick(0, 1) == 1, pick(0, 1) == 1, pick(0, 1) == 1, static_cast<double>(pick(0, 20)) / 20, static_cast<Pattern>(pick(0, 2)), posts[i % 4]}, r);
    if (HasFatalFailure()) return;
  }
}

TEST_P(SparseIsa, TakesDeepAndWideProducts) {
  std::mt19937 r(12);
  for (const int64_t rows : {1, 5, 33}) {
    check({rows, 2600, 18, false, true, false, 0.7, Pattern::Anywhere, {}}, r);
    check({rows, 64, 700, true, true, false, 0.8, Pattern::Blocks, {}}, r);
  }
}

TEST_P(SparseIsa, LongSumsDontGatherTheirRoundings) {
  constexpr int64_t kLong = 100000;
  const std::vector<float> x(kLong, 0.1f);
  Tensor w(DType::F32, {kLong, 1});
  std::fill_n(w.mutable_data<float>(), kLong, 0.3f);
  const SparseProduct product(w, false, {});
  for (const SparseForm form : kForms) {
    if (form == SparseForm::Tables && cpu::sparse_tiles()->table_rows == 0) continue;
    float y = 0;
    product.run_as(form, x.data(), 1, nullptr, {}, false, &y);
    EXPECT_NEAR(y, kLong * static_cast<double>(0.1f) * static_cast<double>(0.3f), 0.05);  // one after the other: 2.4 off
  }
}

INSTANTIATE_TEST_SUITE_P(SparseProduct, SparseIsa, ::testing::ValuesIn(kIsas));

bool has_loops() { return cpu::sparse_tiles() != nullptr; }

TEST(SparseWeights, AreCountedByForm) {
  // 32 x 32: column 0 has 8 weights in rows 0…7, column 17 one in row 31.
  Tensor w = Tensor::zeros(DType::F32, {32, 32});
  for (int64_t k = 0; k < 8; ++k) w.mutable_data<float>()[k * 32] = 1;
  w.mutable_data<float>()[31 * 32 + 17] = 1;
  const cpu::SparseCounts counts = cpu::count_kept({w.data<float>(), 32, 32, 32, 1});
  EXPECT_DOUBLE_EQ(counts.kept, 9 / 1024.0);
  EXPECT_DOUBLE_EQ(counts.panels, 9 * 16 / 1024.0);       // 8 rows of the first 16 columns, 1 of the second
  EXPECT_DOUBLE_EQ(counts.slots, (8 + 1) * 16 / 1024.0);  // the most of a column: 8 and 1
}

TEST(SparseProductRule, TakesWeightsFromSomeShareOfZerosOn) {
  if (!has_loops()) GTEST_SKIP() << "no loops for this processor";
  std::mt19937 r(5);
  std::string why;
  EXPECT_EQ(SparseProduct::make(sparse_weights(r, 256, 256, false, 0, Pattern::Anywhere), false, &why), nullptr);
  EXPECT_EQ(why, "");
  EXPECT_EQ(SparseProduct::make(sparse_weights(r, 256, 256, false, 0.33, Pattern::Anywhere), false, &why), nullptr);
  EXPECT_THAT(why, testing::MatchesRegex("sparse kernel refused: 3[0-9] % zeros, wins from [0-9]+ %, or in blocks of 16 outputs"));
  const auto most = SparseProduct::make(sparse_weights(r, 256, 256, false, 0.8, Pattern::Anywhere), false, &why);
  ASSERT_TRUE(most);
  EXPECT_TRUE(most->wins(64));
  EXPECT_THAT(most->describe(), testing::HasSubstr("80 % zeros left out"));
  const auto blocks = SparseProduct::make(sparse_weights(r, 256, 256, false, 0.3, Pattern::Blocks), false, &why);
  ASSERT_TRUE(blocks);
  for (const int64_t rows : {1, 64}) EXPECT_EQ(blocks->form_for(rows), SparseForm::Panels);
}

/// x · w + b, then Relu.
ValueId product(Net& net, ValueId x, Tensor w, Tensor bias, bool alone) {
  const ValueId y = net.add("MatMul", {x, net.constant(std::move(w))});
  return alone ? y : net.add("Relu", {net.add("Add", {y, net.constant(std::move(bias))})});
}

Tensor floats(std::mt19937& r, Shape shape) {
  const auto v = random_floats(r, element_count(shape));
  return Tensor::of<float>(std::move(shape), std::span<const float>(v));
}

std::string plan_of(const Graph& graph) {
  std::string text;
  for (const auto& step : Session(graph).plan()) text += step.kernel + "; " + step.refusal + "\n";
  return text;
}

TEST(SparsePlan, ProductsLeaveZerosOutAloneAndWithTheirNeighbours) {
  if (!has_loops()) GTEST_SKIP() << "no loops for this processor";
  std::mt19937 r(6);
  Agreement agreement;
  for (const int64_t rows : {1, 3, 12, 70, 130})
    for (const bool alone : {true, false}) {
      Net net;
      net.output(product(net, net.input(DType::F32, {2, rows, 96}), sparse_weights(r, 96, 112, false, 0.85, Pattern::Anywhere), floats(r, {112}), alone));
      const ValueId x = net.graph().inputs()[0];
      expect_fused(net, {{x, floats(r, {2, rows, 96})}}, "MatMul", agreement);
      EXPECT_THAT(plan_of(net.graph()), testing::HasSubstr("zeros left out"));
    }
}

TEST(SparsePlan, ConvolutionsOfSinglePixelsLeaveZerosOut) {
  if (!has_loops()) GTEST_SKIP() << "no loops for this processor";
  std::mt19937 r(7);
  Agreement agreement;
  for (const auto& [batch, height, width] : {std::array<int64_t, 3>{1, 1, 1}, {1, 7, 9}, {3, 13, 11}})
    for (const bool residual : {false, true}) {
      SCOPED_TRACE(testing::Message() << batch << " x " << height << " x " << width << (residual ? " with the residual" : ""));
      Net net;
      const ValueId x = net.input(DType::F32, {batch, 64, height, width});
      const ValueId a = net.add("Conv", {x, net.constant(sparse_weights(r, 64, 72, true, 0.85, Pattern::Anywhere, true)), net.constant(floats(r, {72}))});
      const ValueId b = net.add("Clip", {a, net.number(-1), net.number(2)});
      const ValueId c = net.add("Conv", {b, net.constant(sparse_weights(r, 72, 64, true, 0.85, Pattern::Blocks, true))});
      net.output(residual ? net.add("Relu", {net.add("Add", {c, x})}) : c);
      net.graph();
      expect_fused(net, {{x, floats(r, {batch, 64, height, width})}}, "Conv Conv", agreement);
      EXPECT_THAT(plan_of(net.graph()), testing::ContainsRegex("zeros left out.*\n.*zeros left out"));
    }
}

Tensor sparse_kernel(std::mt19937& r, const Shape& shape, double zeros, Pattern pattern) {
  const int64_t m = shape[0], rest = element_count(shape) / m;
  return sparse_weights(r, rest, m, true, zeros, pattern).reshaped(shape);
}

TEST(SparsePlan, ConvolutionsOfEveryWindowLeaveZerosOut) {
  if (!has_loops()) GTEST_SKIP() << "no loops for this processor";
  using Ints = std::vector<int64_t>;
  struct {
    Attributes attributes;
    Shape x, kernel;
  } cases[] = {
      {{{"pads", Ints{1, 1, 1, 1}}}, {2, 24, 9, 11}, {96, 24, 3, 3}},
      {{{"strides", Ints{2, 2}}}, {1, 64, 8, 8}, {80, 64, 1, 1}},
      {{{"strides", Ints{2, 1}}, {"dilations", Ints{1, 2}}, {"pads", Ints{0, 3, 2, 1}}}, {3, 20, 10, 12}, {97, 20, 3, 2}},
      {{{"pads", Ints{1, 1, 1, 1}}}, {1, 64, 8, 8}, {64, 64, 1, 1}},
      {{{"auto_pad", std::string("SAME_UPPER")}}, {1, 32, 7, 5}, {80, 32, 5, 5}},
      {{{"pads", Ints{2, 2}}}, {2, 32, 50}, {80, 32, 5}},
      {{{"pads", Ints{6, 6, 6, 6}}}, {1, 32, 3, 2}, {80, 32, 3, 3}},
  };
  std::mt19937 r(8);
  Agreement agreement;
  for (auto& c : cases)
    for (const Pattern pattern : {Pattern::Anywhere, Pattern::Blocks})
      for (const bool residual : {false, true}) {
        SCOPED_TRACE(testing::Message() << to_string(c.x) << " " << to_string(c.kernel) << " pattern " << static_cast<int>(pattern) << (residual ? ", with the residual" : ""));
        Net net;
        const ValueId x = net.input(DType::F32, c.x), other = net.open_input(DType::F32);
        const ValueId y = net.add("Conv", {x, net.constant(sparse_kernel(r, c.kernel, 0.9, pattern)), net.constant(floats(r, {c.kernel[0]}))}, c.attributes);
        net.output(residual ? net.add("Relu", {net.add("Add", {y, other})}) : y);
        Feeds feeds{{x, floats(r, c.x)}};
        feeds[other] = floats(r, {1});
        if (residual) feeds[other] = floats(r, run_plain(net.graph(), feeds)[0].shape());
        expect_fused(net, feeds, "Conv", agreement);
        EXPECT_THAT(plan_of(net.graph()), testing::HasSubstr("zeros left out"));
      }
}

TEST(SparsePlan, ManyOutputsInFewPixelsFindTheDenseWeights) {
  if (!has_loops()) GTEST_SKIP() << "no loops for this processor";
  std::mt19937 r(13);
  Net net;
  const ValueId x = net.open_input(DType::F32);
  net.output(net.add("Conv", {x, net.constant(sparse_kernel(r, {96, 48, 3, 3}, 0.8, Pattern::Anywhere))}, {{"pads", std::vector<int64_t>{1, 1, 1, 1}}}));
  const Session session(net.graph());
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{2, 4}, {20, 20}, {3, 3}, {1, 1}}) {
    const Feeds feeds{{x, floats(r, {1, 48, height, width})}};
    Agreement agreement;
    agreement.compare(session.run(feeds)[0], run_plain(net.graph(), feeds)[0]);
  }
}

TEST(SparsePlan, GroupedConvolutionsStayDense) {
  std::mt19937 r(14);
  Net net;
  const ValueId x = net.input(DType::F32, {1, 64, 8, 8});
  net.output(net.add("Conv", {x, net.constant(sparse_kernel(r, {64, 32, 1, 1}, 0.9, Pattern::Anywhere))}, {{"group", int64_t{2}}}));
  expect_fused(net, {{x, floats(r, {1, 64, 8, 8})}}, "Conv");
  EXPECT_THAT(plan_of(net.graph()), testing::Not(testing::HasSubstr("zeros left out")));
}

TEST(SparsePlan, WeightsThatNodesMakeAreLetGo) {
  if (!has_loops()) GTEST_SKIP() << "no loops for this processor";
  std::mt19937 r(9);
  Net net;
  const ValueId x = net.input(DType::F32, {1, 128});
  const ValueId w = net.add("Mul", {net.constant(sparse_weights(r, 128, 128, false, 0.9, Pattern::Anywhere)), net.number(0.5f)});
  net.output(net.add("MatMul", {x, w}));
  net.graph();
  Agreement agreement;
  expect_fused(net, {{x, floats(r, {1, 128})}}, "MatMul", agreement);
  EXPECT_THAT(plan_of(net.graph()), testing::HasSubstr("zeros left out"));
}

TEST(SparsePlan, OtherNumbersOfRowsFindTheWeightsAgain) {
  if (!has_loops()) GTEST_SKIP() << "no loops for this processor";
  std::mt19937 r(10);
  for (const Pattern pattern : {Pattern::Anywhere, Pattern::TwoOfFour, Pattern::Blocks}) {
    Tensor given = sparse_weights(r, 160, 144, false, 0.8, pattern);
    const Tensor kept = given.clone();
    SparseProduct product(given, false, cpu::count_kept({given.data<float>(), 160, 144, 144, 1}));
    given = {};
    std::vector<float> first;
    for (const int64_t rows : {1, 70, 3}) {
      const std::vector<float> x(static_cast<size_t>(rows * 160), 0.5f);
      std::vector<float> y(static_cast<size_t>(rows * 144));
      product.run_as(rows > 6 ? SparseForm::Lists : SparseForm::Panels, x.data(), rows, nullptr, {}, false, y.data());
      if (first.empty()) first = y;
      for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], first[i % 144], 1e-4);
    }
    EXPECT_EQ(std::memcmp(product.weights().data<float>(), kept.data<float>(), kept.bytes()), 0);
  }
}

}  // namespace
}  // namespace infopt::test
