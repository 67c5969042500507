// ONNX's Attention as one step against sums in double and against the body that ONNX defines for it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tests/runtime/attention_cases.h"

namespace infopt::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Element [b, head, row, d] of a tensor of either layout.
double element(const Tensor& t, const std::vector<double>& x, int64_t heads, int64_t b, int64_t head, int64_t row, int64_t d) {
  if (t.rank() == 4) return x[static_cast<size_t>(((b * t.dim(1) + head) * t.dim(2) + row) * t.dim(3) + d)];
  const int64_t depth = t.dim(2) / heads;
  return x[static_cast<size_t>((b * t.dim(1) + row) * t.dim(2) + head * depth + d)];
}

/// The mask's value, −∞ where a short mask has none; `x` broadcasts from the right.
double bias(const AttentionCase& c, const AttentionInputs& g, const std::vector<double>& x, int64_t b, int64_t head, int64_t row, int64_t key) {
  if (c.mask_shape.empty()) return 0;
  const int64_t columns = c.mask_shape.back();
  if (key >= columns && c.opset >= 24) return -kInfinity;
  const int64_t at[] = {b, head, row, key};
  int64_t index = 0;
  for (size_t i = 0, rank = c.mask_shape.size(); i < rank; ++i) index = index * c.mask_shape[i] + (c.mask_shape[i] == 1 ? 0 : at[4 - rank + i]);
  const double value = x[static_cast<size_t>(index)];
  return g.mask.dtype() == DType::Bool ? (value != 0 ? 0 : -kInfinity) : value;
}

/// By the operator's definition, in double, in the layout of the output.
std::vector<double> reference(const AttentionCase& c, const AttentionInputs& g) {
  const auto q = to_vector<double>(g.q), k = to_vector<double>(g.k), v = to_vector<double>(g.v);
  const auto mask = g.mask.defined() ? to_vector<double>(g.mask) : std::vector<double>();
  const auto past_key = c.with_past ? to_vector<double>(g.past_key) : std::vector<double>(), past_value = c.with_past ? to_vector<double>(g.past_value) : std::vector<double>();
  const auto key_at = [&](int64_t b, int64_t h, int64_t t, int64_t d) { return t < c.past ? element(g.past_key, past_key, 0, b, h, t, d) : element(g.k, k, c.kv_heads, b, h, t - c.past, d); };
  const auto value_at = [&](int64_t b, int64_t h, int64_t t, int64_t d) { return t < c.past ? element(g.past_value, past_value, 0, b, h, t, d) : element(g.v, v, c.kv_heads, b, h, t - c.past, d); };
  const double scale = c.scale != 0 ? c.scale : 1 / std::sqrt(static_cast<double>(c.depth));
  std::vector<double> y(static_cast<size_t>(c.batch * c.q_heads * c.queries * c.value_depth));
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t h = 0; h < c.q_heads; ++h)
      for (int64_t s = 0; s < c.queries; ++s) {
        const int64_t kv = h / (c.q_heads / c.kv_heads), known = c.lengths ? g.lengths.data<int64_t>()[b] : c.total();
        const int64_t place = s + (c.lengths ? known - c.queries : c.past);
        std::vector<double> w(static_cast<size_t>(c.total()));
        double top = -kInfinity, total = 0;
        for (int64_t t = 0; t < c.total(); ++t) {
          double score = 0;
          for (int64_t d = 0; d < c.depth; ++d) score += element(g.q, q, c.q_heads, b, h, s, d) * key_at(b, kv, t, d);
          score *= scale;
          if (c.softcap > 0) score = static_cast<double>(c.softcap) * std::tanh(score / static_cast<double>(c.softcap));
          score += bias(c, g, mask, b, h, s, t);
          const bool seen = t < known && !(c.causal && t > place) && !(c.left >= 0 && t < place - c.left) && !(c.right >= 0 && t > place + c.right);
          w[static_cast<size_t>(t)] = seen ? score : -kInfinity;
          top = std::max(top, w[static_cast<size_t>(t)]);
        }
        for (double& x : w) total += x = top == -kInfinity ? 0 : std::exp(x - top);
        for (int64_t e = 0; e < c.value_depth; ++e) {
          double sum = 0;
          for (int64_t t = 0; t < c.total(); ++t) sum += total == 0 ? 0 : w[static_cast<size_t>(t)] / total * value_at(b, kv, t, e);
          y[static_cast<size_t>(c.three_axes ? (b * c.queries + s) * c.q_heads * c.value_depth + h * c.value_depth + e : ((b * c.q_heads + h) * c.queries + s) * c.value_depth + e)] = sum;
        }
      }
  return y;
}

std::string kernel_of(const Graph& graph) { return Session(graph).plan().at(0).kernel; }

void check(const AttentionCase& c, Random& r) {
  SCOPED_TRACE(c.describe());
  const AttentionInputs g = inputs_of(c, r);
  AttentionNet built(c.opset);
  build(built, c, g);
  const Graph& graph = built.net.graph();
  ASSERT_EQ(kernel_of(graph), "attention in float32 without a matrix of scores");
  const auto got = Session(graph).run(built.feeds), body = run_plain(graph, built.feeds);
  expect_any_threads(graph, built.feeds, got);
  const double bound = c.type == DType::F32 ? 2e-5 : c.type == DType::F16 ? 4e-3 : 4e-2;
  const std::vector<double> y = to_vector<double>(got[0]), expected = reference(c, g), theirs = to_vector<double>(body[0]);
  ASSERT_EQ(got[0].shape(), body[0].shape());
  ASSERT_EQ(got[0].dtype(), c.type);
  for (size_t i = 0; i < y.size(); ++i) {
    ASSERT_NEAR(y[i], expected[i], bound) << "element " << i;
    ASSERT_NEAR(y[i], theirs[i], 2 * bound) << "element " << i << " of ONNX's body";
  }
  for (size_t i = 1; i < got.size(); ++i) expect_same_bits(got[i], body[i]);
}

TEST(AttentionOperator, EqualsItsDefinitionForRandomShapesMasksAndCaches) {
  Random r(11);
  for (int i = 0; i < 300 && !HasFatalFailure(); ++i) {
    check(random_attention(r), r);
  }
}

TEST(AttentionOperator, TakesKeysInSeveralBlocks) {
  Random r(12);
  for (const int64_t queries : {1, 3, 40})
    for (const bool lengths : {false, true}) {
      AttentionCase c{.batch = queries == 3 ? 2 : 1, .q_heads = 2, .kv_heads = 1, .queries = queries, .keys = 1100, .depth = 64, .value_depth = 17};
      c.causal = true;
      c.lengths = lengths;
      c.left = lengths ? 700 : -1;
      check(c, r);
      c.mask_shape = {c.queries, c.keys};
      check(c, r);
    }
}

TEST(AttentionOperator, GivesAPresentForKeysWithoutAPast) {
  Random r(13);
  for (const bool three_axes : {false, true}) {
    AttentionCase c{.batch = 2, .q_heads = 4, .kv_heads = 2, .queries = 3, .keys = 5, .depth = 8, .value_depth = 6, .three_axes = three_axes};
    c.opset = 24;
    c.present = true;
    check(c, r);
  }
}

// A position that no mask allows has no weight, whatever stands there; a query that sees nothing gives 0.
TEST(AttentionOperator, KeysBehindTheKnownOnesDontShow) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  AttentionCase c{.queries = 2, .keys = 3, .depth = 1, .value_depth = 1};
  c.lengths = true;
  AttentionInputs g;
  g.q = Tensor::of<float>({1, 1, 2, 1}, {1, 1});
  g.k = Tensor::of<float>({1, 1, 3, 1}, {0, 0, nan});
  g.v = Tensor::of<float>({1, 1, 3, 1}, {2, 4, 8});
  g.lengths = Tensor::vector<int64_t>({2});
  AttentionNet built(24);
  build(built, c, g);
  EXPECT_THAT(to_vector<float>(Session(built.net.graph()).run(built.feeds)[0]), testing::ElementsAre(3, 3));
  c.causal = true;
  g.lengths = Tensor::vector<int64_t>({1});  // the first query then stands before the first key
  AttentionNet causal(24);
  build(causal, c, g);
  EXPECT_THAT(to_vector<float>(Session(causal.net.graph()).run(causal.feeds)[0]), testing::ElementsAre(0, 2));
}

TEST(AttentionOperator, RunsByItsBodyWhereTheScoresAreAnOutputOrDoubles) {
  Random r(14);
  AttentionCase c{.q_heads = 2, .kv_heads = 2, .queries = 3, .keys = 4, .depth = 5, .value_depth = 6};
  const auto body = [&](const Attributes& attributes, size_t outputs) {
    const AttentionInputs g = inputs_of(c, r);
    AttentionNet built(c.opset);
    build(built, c, g, attributes, outputs);
    const Graph& graph = built.net.graph();
    EXPECT_NE(kernel_of(graph).find("body"), std::string::npos);
    EXPECT_NE(Session(graph).plan().at(0).refusal, "");
    const std::vector<double> y = to_vector<double>(Session(graph).run(built.feeds)[0]), expected = reference(c, g);
    for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], expected[i], 1e-5);
  };
  body({{"softmax_precision", int64_t{11}, {}}}, 1);
  c.opset = 23;
  body({}, 4);
  c.type = DType::F64;
  body({}, 1);
}

TEST(AttentionOperator, ShapesThatDontFitAreErrors) {
  Random r(15);
  const auto fails = [&](AttentionCase c, auto change) {
    AttentionInputs g = inputs_of(c, r);
    change(g);
    AttentionNet built(c.opset);
    build(built, c, g);
    EXPECT_THROW(Session(built.net.graph()).run(built.feeds), Error);
  };
  const AttentionCase c{.batch = 2, .q_heads = 4, .kv_heads = 2, .queries = 3, .keys = 5, .depth = 8, .value_depth = 6};
  fails(c, [&](AttentionInputs& g) { g.k = random_floats(r, {2, 3, 5, 8}, DType::F32); });
  fails(c, [&](AttentionInputs& g) { g.k = random_floats(r, {2, 2, 5, 7}, DType::F32); });
  fails(c, [&](AttentionInputs& g) { g.v = random_floats(r, {2, 2, 6, 6}, DType::F32); });
  fails(c, [&](AttentionInputs& g) { g.v = random_floats(r, {1, 2, 5, 6}, DType::F32); });
  fails(c, [&](AttentionInputs& g) { g.mask = random_floats(r, {4, 5}, DType::F32); });
  fails(c, [&](AttentionInputs& g) { g.past_key = random_floats(r, {2, 2, 1, 8}, DType::F32); });
  fails(c, [&](AttentionInputs& g) { g.past_key = random_floats(r, {2, 2, 1, 7}, DType::F32), g.past_value = random_floats(r, {2, 2, 1, 6}, DType::F32); });
  fails(c, [&](AttentionInputs& g) { g.past_key = random_floats(r, {2, 2, 1, 8}, DType::F32), g.past_value = random_floats(r, {2, 2, 2, 6}, DType::F32); });
  fails(c, [&](AttentionInputs& g) { g.lengths = Tensor::vector<int64_t>({1, 2, 3}); });
  fails(c, [&](AttentionInputs& g) { g.q = random_floats(r, {3, 8}, DType::F32); });
}

}  // namespace
}  // namespace infopt::test
