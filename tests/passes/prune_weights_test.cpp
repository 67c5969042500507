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
