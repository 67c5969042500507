// The passes prune_weights, without data, and pack_zeros. With data: tests/python/test_prune.py.
#include <gtest/gtest.h>

#include "lib/base/error.h"
#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using test::after;
using test::constant_of;
using test::graph_of;

int64_t zeros_of(const Tensor& t) {
  const auto values = to_vector<double>(t);
  return std::count(values.begin(), values.end(), 0.0);
}

const char* const kProduct = "g (float[N,32] x, float[32,48] w) => (float[N,48] y) { y = MatMul(x, w) }";
const char* const kConvolution = "g (float[N,8,6,6] x, float[16,8,3,3] w) => (float[N,16,6,6] y) { y = Conv<pads=[1,1,1,1]>(x, w) }";

TEST(PruneWeights, MagnitudeTakesTheShareThatWasAsked) {
  for (double sparsity : {0.25, 0.5, 0.9}) {
    const Model m = after(graph_of(kProduct), "prune_weights", {{"score", std::string("magnitude")}, {"sparsity", sparsity}});
    EXPECT_EQ(zeros_of(constant_of(m, "MatMul", 1)), static_cast<int64_t>(sparsity * 32 * 48));
    EXPECT_EQ(constant_of(m, "MatMul", 1).shape(), (Shape{32, 48}));
  }
}

TEST(PruneWeights, TwoOfFourInputChannelsOfEachTapStay) {
  const Model m = after(graph_of(kConvolution), "prune_weights", {{"score", std::string("magnitude")}, {"pattern", std::string("n:m")}});
  const auto w = to_vector<float>(constant_of(m, "Conv", 1));
  for (size_t o = 0; o < 16; ++o)
    for (size_t tap = 0; tap < 9; ++tap)
      for (size_t from = 0; from < 8; from += 4) {
        int kept = 0;
        for (size_t i = from; i < from + 4; ++i) kept += w[(o * 8 + i) * 9 + tap] != 0;
        EXPECT_EQ(kept, 2);
      }
}

TEST(PruneWeights, OneThresholdForAllLayersTakesMoreFromTheSmallOnes) {
  const Model before = graph_of("g (float[N,32] x, float[32,40] w1, float[40,32] w2, float s) => (float[N,32] y) { a = MatMul(x, w1) y = MatMul(a, w2) }");
  Model small = before;
  small.graph = before.graph->clone();
  {
    GraphEdit edit(*small.graph);
    const Node& first = test::node_of(small, "MatMul");
    std::vector<float> w = to_vector<float>(*small.graph->constant(first.input(1)));
    for (float& v : w) v *= 0.1f;
    edit.set_constant(first.input(1), Tensor::vector(w).reshaped({32, 40}));
  }
  const Model m = after(small, "prune_weights", {{"score", std::string("magnitude")}, {"scope", std::string("global")}, {"sparsity", 0.5}});
  std::vector<int64_t> zeros;
  for (NodeId id : m.graph->order()) zeros.push_back(zeros_of(*m.graph->constant(m.graph->node(id).input(1))));
  EXPECT_NEAR(static_cast<double>(zeros[0] + zeros[1]), 0.5 * 2 * 32 * 40, 2);
  EXPECT_GT(zeros[0], 7 * zeros[1]);
}

TEST(PruneWeights, WeightsThatAnotherOperatorReadsStay) {
  const Model m = after(graph_of("g (float[N,32] x, int64[K] i, float[32,48] w) => (float[N,48] y, float[K,48] z) { y = MatMul(x, w) z = Gather(w, i) }"), "prune_weights", {{"score", std::string("magnitude")}});
  EXPECT_EQ(zeros_of(constant_of(m, "MatMul", 1)), 0);
}

TEST(PruneWeights, RecurrentWeightsGoToo) {
  for (const char* op : {"LSTM", "GRU", "RNN"}) {
    const int gates = op[0] == 'L' ? 4 : op[0] == 'G' ? 3 : 1;
    const std::string rows = std::to_string(gates * 16);
    const Model m = after(graph_of("g (float[5,1,24] x, float[2," + rows + ",24] wi, float[2," + rows + ",16] wr) => (float[5,2,1,16] y) { y = " + op + "<hidden_size=16, direction=\"bidirectional\">(x, wi, wr) }"),
                          "prune_weights", {{"score", std::string("magnitude")}});
    EXPECT_EQ(zeros_of(constant_of(m, op, 1)), gates * 16 * 24) << op;
    EXPECT_EQ(zeros_of(constant_of(m, op, 2)), gates * 16 * 16) << op;
  }
}

/// 2:4 by rows of a Loop's matrix that lies [inputs][outputs]: its columns' groups.
TEST(PruneWeights, WeightsThatALayerAndALoopMultiplyByGoOnce) {
  const Model m = after(graph_of(R"(g (float[4,32] x, float[32,32] wk) => (float[4,32] y) {
    n = Constant <value = int64 {2}> () go = Constant <value = bool {1}> () a = MatMul(x, wk)
    y = Loop(n, go, a) <body = b (int64 i, bool c, float[4,32] s) => (bool d, float[4,32] t) { d = Identity(c) u = MatMul(s, wk) t = Sigmoid(u) }> })"),
                        "prune_weights", {{"score", std::string("magnitude")}, {"pattern", std::string("n:m")}});
  const Tensor& w = constant_of(m, "MatMul", 1);
  for (int64_t o = 0; o < 32; ++o)
    for (int64_t from = 0; from < 32; from += 4) {
      int kept = 0;
      for (int64_t i = from; i < from + 4; ++i) kept += w.data<float>()[i * 32 + o] != 0;
      EXPECT_EQ(kept, 2);
    }
  const Node& loop = test::node_of(m, "Loop");
  EXPECT_EQ(m.graph->constant(loop.captures.at(0)), &w);
}

TEST(PruneWeights, ConstantsOfBothBranchesGoAndAreKeptOnce) {
  const std::string branch = "(float[4,32] z) { w = Constant<value = float[32,32] {" + [] {
    std::string values;
    for (int i = 0; i < 1024; ++i) values += (i ? "," : "") + std::to_string(i % 2 ? i + 1 : -i) + ".5";
    return values;
  }() + "}>() z = ";
  const Model before = graph_of("g (float[4,32] x, bool c) => (float[4,32] y) { y = If(c) <then_branch = t () => " + branch + "MatMul(x, w) }, else_branch = e () => " + branch + "Gemm(x, w) }> }");
  const Model m = after(before, "prune_weights", {{"score", std::string("magnitude")}});
  const Node& choice = test::node_of(m, "If");
  int constants = 0;
  for (ValueId c : choice.captures) {
    const Tensor* t = m.graph->constant(c);
    if (!t) continue;
    ++constants;
    EXPECT_EQ(zeros_of(*t), 512);
  }
  EXPECT_EQ(constants, 1);
  EXPECT_LT(serialize_model(m).size(), 0.7 * static_cast<double>(serialize_model(before).size()));
}

TEST(PruneWeights, ATableThatABodyLooksUpInStays) {
  const Model m = after(graph_of(R"(g (int64[4] j, float[64,32] wk, float[4,64] x) => (float[4,32] y) {
    n = Constant <value = int64 {2}> () go = Constant <value = bool {1}> () a = MatMul(x, wk)
    y = Loop(n, go, a) <body = b (int64 i, bool c, float[4,32] s) => (bool d, float[4,32] t) { d = Identity(c) u = Gather(wk, j) t = Add(s, u) }> })"),
                        "prune_weights", {{"score", std::string("magnitude")}});
  EXPECT_EQ(zeros_of(constant_of(m, "MatMul", 1)), 0);
}

TEST(PruneWeights, WhatNeedsDataOrCantBeIsAUsageError) {
  const Model m = graph_of(kProduct);
  EXPECT_THROW(after(m, "prune_weights"), Error);  // SparseGPT
  const std::string magnitude = "magnitude", pattern = "n:m";
  EXPECT_THROW(after(m, "prune_weights", {{"score", magnitude}, {"pattern", pattern}, {"n", int64_t{4}}}), Error);
  EXPECT_THROW(after(m, "prune_weights", {{"score", magnitude}, {"pattern", pattern}, {"scope", std::string("global")}}), Error);
}

Model pruned(const std::string& text, double sparsity = 0.5) {
  return after(graph_of(text), "prune_weights", {{"score", std::string("magnitude")}, {"sparsity", sparsity}});
}

TEST(PackZeros, TheConstantIsTheSameToTheBit) {
  // 1,536 and 1,152 elements together, then 32·45 = 1,440 alone; 31·27 elements leave a byte half full.
  for (const char* text : {kProduct, kConvolution, "g (float[N,31] x, float[31,27] w) => (float[N,27] y) { y = MatMul(x, w) }",
                           "g (float[N,32] x, float[32,48] w1, float[48,24] w2) => (float[N,24] y) { a = MatMul(x, w1) y = MatMul(a, w2) }"}) {
    const Model before = pruned(text);
    EditLog log;
    const Model packed = after(before, "pack_zeros", {}, &log);
    EXPECT_EQ(test::difference(before, packed), 0) << text;
    EXPECT_LT(serialize_model(packed).size(), 0.85 * static_cast<double>(serialize_model(before).size())) << text;
    EXPECT_EQ(log.notes.size(), 1u);
    const Model folded = after(packed, "fold_constants");
    const Node& first = test::node_of(folded, text == kConvolution ? "Conv" : "MatMul");
    const Node& origin = test::node_of(before, text == kConvolution ? "Conv" : "MatMul");
    EXPECT_EQ(to_vector<float>(*folded.graph->constant(first.input(1))), to_vector<float>(*before.graph->constant(origin.input(1))));
  }
}

TEST(PackZeros, OperatorsAreStandardAndShareTheirConstants) {
  const Model packed = after(pruned("g (float[N,32] x, float[32,48] w1, float[48,24] w2) => (float[N,24] y) { a = MatMul(x, w1) y = MatMul(a, w2) }"), "pack_zeros");
  EXPECT_EQ(test::ops(packed), "BitShift Mod Cast Reshape CumSum Mul Gather Split Reshape MatMul Reshape MatMul");
}

TEST(PackZeros, WhatWouldNotShrinkStays) {
  EXPECT_EQ(test::ops(after(graph_of(kProduct), "pack_zeros")), "MatMul");
  EXPECT_EQ(test::ops(after(pruned(kProduct, 0.05), "pack_zeros")), "MatMul");
}

}  // namespace
}  // namespace infopt
