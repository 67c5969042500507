// The order of channels that an N:M pattern likes: the search by itself, and that graphs of every kind keep their function.
#include "passes/support/permute_channels.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>

#include "tests/passes/graph_helper.h"

namespace infopt::test {
namespace {

/// prune_weights with a pattern but nothing to prune: only the order changes.
const Settings kOnlyOrder = {{"score", std::string("magnitude")}, {"pattern", std::string("n:m")}, {"permute", true}, {"min_weights", int64_t{1} << 40}};

ColumnScores columns_of(const std::vector<std::vector<float>>& rows, size_t columns) {
  ColumnScores out(columns, std::vector<float>(16, 0.0f));
  for (size_t r = 0; r < rows.size(); ++r)
    for (size_t c = 0; c < columns; ++c) out[c][r] = rows[r][c];
  return out;
}

TEST(PermuteChannels, LargeWeightsOfOneGroupAreSpread) {
  // 2 of 4: of 9 8 7 6 | 1 1 1 1 stay 9 8 1 1; with two of each in a group all four large ones.
  const ColumnScores scores = columns_of({{9, 8, 7, 6, 1, 1, 1, 1}}, 8);
  std::vector<int64_t> as_is(8);
  std::iota(as_is.begin(), as_is.end(), 0);
  EXPECT_DOUBLE_EQ(kept_by_pattern(scores, as_is, 2, 4), 19);
  const auto order = order_for_pattern(scores, std::vector<bool>(8, true), 2, 4);
  EXPECT_DOUBLE_EQ(kept_by_pattern(scores, order, 2, 4), 30);
  EXPECT_TRUE(std::is_permutation(order.begin(), order.end(), as_is.begin()));
}

TEST(PermuteChannels, ColumnsThatMayNotMoveStay) {
  const ColumnScores scores = columns_of({{9, 8, 7, 6, 1, 1, 1, 1}}, 8);
  std::vector<bool> may(8, true);
  may[2] = may[5] = false;
  const auto order = order_for_pattern(scores, may, 2, 4);
  EXPECT_EQ(order[2], 2);
  EXPECT_EQ(order[5], 5);
  EXPECT_DOUBLE_EQ(kept_by_pattern(scores, order, 2, 4), 30);
}

TEST(PermuteChannels, OtherPatternsAndTheRestOfAnAxisAreSearchedToo) {
  std::vector<std::vector<float>> rows(5, std::vector<float>(11));
  const Tensor values = noise(DType::F32, {5, 11}, 7, true);
  for (size_t i = 0; i < 55; ++i) rows[i / 11][i % 11] = values.data<float>()[i];
  const ColumnScores scores = columns_of(rows, 11);
  std::vector<int64_t> as_is(11);
  std::iota(as_is.begin(), as_is.end(), 0);
  for (const auto& [n, m] : {std::pair<int64_t, int64_t>{1, 2}, {1, 4}, {3, 5}}) {
    const auto order = order_for_pattern(scores, std::vector<bool>(11, true), n, m);
    EXPECT_GE(kept_by_pattern(scores, order, n, m), kept_by_pattern(scores, as_is, n, m));
    EXPECT_TRUE(std::is_permutation(order.begin(), order.end(), as_is.begin()));
  }
}

TEST(PermuteChannels, EveryGraphKeepsItsFunction) {
  for (const std::string text : {
           "g (float[N,6] x, float[6,20] w1, float[20] wb, float[20,12] w2) => (float[N,12] y) { a = MatMul(x, w1) b = Add(a, wb) c = Tanh(b) y = MatMul(c, w2) }",
           // Depthwise, batch normalization, a residual.
           "g (float[N,3,6,6] x, float[16,3,1,1] w1, float[16] wb, float[16,1,3,3] w2, float[16] w3, float[16] w4, float[16] w5, float[16] v6, float[5,16,3,3] w7) => (float[N,5,M,K] y) {"
           "  a = Conv(x, w1, wb) b = Relu(a) c = Conv<group = 16, pads = [1, 1, 1, 1]>(b, w2) d = BatchNormalization(c, w3, w4, w5, v6) e = Add(a, d) y = Conv(e, w7) }",
           // A channel owns a run of columns.
           "g (float[N,3,6,6] x, float[8,3,3,3] w1, float[8,8,1,1] w2, float[5,128] w3, float[5] wc) => (float[N,5] y) { a = Conv(x, w1) b = Relu(a) c = Conv(b, w2) d = Flatten(c) y = Gemm<transB = 1>(d, w3, wc) }",
           // Two halves that lie side by side and one that is taken out again.
           "g (float[N,3,6,6] x, float[8,3,1,1] w1, float[8,3,1,1] w2, float[5,16,1,1] w3, float[5,8,1,1] w4) => (float[N,5,6,6] y) {"
           "  a = Conv(x, w1) b = Conv(x, w2) c = Concat<axis = 1>(a, b) d = Sigmoid(c) e = Conv(d, w3) f, h = Split<axis = 1>(d) k = Conv(f, w4) y = Add(e, k) }",
           // A stream that LayerNorm runs over, with a table behind it.
           "g (int64[N] i, float[7,16] w1, float[16] w2, float[16] w3, float[16,24] w4, float[24,16] w5, float[16,9] w6) => (float[N,9] y) {"
           "  a = Gather(w1, i) b = LayerNormalization(a, w2, w3) c = MatMul(b, w4) d = Relu(c) e = MatMul(d, w5) f = Add(a, e) y = MatMul(f, w6) }",
           // Squeeze-excite, groups.
           "g (float[N,3,6,6] x, float[16,3,1,1] w1, float[8,16,1,1] w2, float[16,8,1,1] w3, float[12,8,1,1] w4, float[4,12,1,1] w5) => (float[N,4,6,6] y) {"
           "  a = Conv(x, w1) b = GlobalAveragePool(a) c = Conv(b, w2) d = Relu(c) e = Conv(d, w3) f = Sigmoid(e) h = Mul(a, f) k = Conv<group = 2>(h, w4) y = Conv(k, w5) }",
           "g (float[N,8,6,6] x, float[16,8,1,1] w1, float[16] w2, float[16] w3, float[9,16,1,1] w4) => (float[N,9,6,6] y) { a = Conv(x, w1) b = InstanceNormalization(a, w2, w3) y = Conv(b, w4) }",
       }) {
    SCOPED_TRACE(text);
    const Model before = graph_of(text);
    EditLog log;
    const Model ordered = after(before, "prune_weights", kOnlyOrder, &log);
    EXPECT_THAT(log.notes.at(0), testing::HasSubstr("changed places"));
    EXPECT_EQ(ops(ordered), ops(before));
    EXPECT_LE(difference(before, ordered), kRounding);
    EXPECT_NEAR(static_cast<double>(serialize_model(ordered).size()), static_cast<double>(serialize_model(before).size()), 300);
  }
}

TEST(PermuteChannels, WhatMeetsTheOutputsStays) {
  const Model before = graph_of("g (float[N,6] x, float[6,20] w) => (float[N,20] y) { y = MatMul(x, w) }");
  EditLog log;
  const Model ordered = after(before, "prune_weights", kOnlyOrder, &log);
  EXPECT_EQ(log.notes, std::vector<std::string>{"no order of channels is better for 2:4 than the one there is"});
  EXPECT_LE(difference(before, ordered), 0);
}

TEST(PermuteChannels, ThePatternThenTakesLessAway) {
  const Model m = graph_of("g (float[N,6] x, float[6,64] w1, float[64,40] w2) => (float[N,40] y) { a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) }");
  double kept[2] = {};
  for (const bool permute : {false, true}) {
    const Model pruned = after(m, "prune_weights", {{"score", std::string("magnitude")}, {"pattern", std::string("n:m")}, {"permute", permute}});
    for (NodeId id : pruned.graph->order())
      if (const Node& n = pruned.graph->node(id); n.is("MatMul") && pruned.graph->constant(n.input(1))->dim(0) == 64)
        for (double v : to_vector<double>(*pruned.graph->constant(n.input(1)))) kept[permute] += std::fabs(v);
  }
  EXPECT_GT(kept[1], 1.005 * kept[0]);
}

}  // namespace
}  // namespace infopt::test
