#include "passes/support/reconstruct.h"

#include <gtest/gtest.h>

#include <cmath>

#include "passes/support/blocks.h"
#include "passes/support/coded_layers.h"
#include "passes/support/weight_grid.h"
#include "tests/passes/graph_helper.h"
#include "tests/passes/one_sample.h"

namespace infopt::test {
namespace {

// --- where a graph is cut ---

std::vector<std::string> layers_of(const Graph& g, const std::vector<Block>& blocks) {
  std::vector<std::string> out;
  for (const Block& b : blocks) {
    std::string text;
    for (NodeId id : b.layers) text += (text.empty() ? "" : " ") + g.value(g.node(id).outputs[0]).name;
    out.push_back(text + " -> " + g.value(b.outputs[0]).name);
  }
  return out;
}

BlockSearch search_of(const Graph& g, size_t most) {
  BlockSearch s;
  for (NodeId id : g.order())
    if (g.node(id).is("MatMul") || g.node(id).is("Conv")) s.layers.insert(id);
  s.comparable = [](ValueId) { return true; };
  s.most_layers = most;
  return s;
}

TEST(Blocks, AResidualBlockIsNotCut) {
  const Model m = model_of(R"(g (float[1,4] x, float[4,4] w1, float[4,4] w2, float[4,4] w3, float[4,4] w4) => (float[1,4] y) {
    a = MatMul(x, w1) r = Relu(a) b = MatMul(r, w2) c = Relu(b) d = MatMul(c, w3) e = Add(d, r) f = MatMul(e, w4) y = Softmax(f) })");
  const Graph& g = *m.graph;
  EXPECT_EQ(layers_of(g, find_blocks(g, search_of(g, 1))), (std::vector<std::string>{"a -> r", "b d -> e", "f -> f"}));  // compared before the Softmax
  EXPECT_EQ(layers_of(g, find_blocks(g, search_of(g, 3))), (std::vector<std::string>{"a b d -> e", "f -> f"}));
  EXPECT_EQ(layers_of(g, find_blocks(g, search_of(g, 9))), (std::vector<std::string>{"a b d f -> f"}));
  EXPECT_EQ(layers_of(g, single_layer_blocks(g, search_of(g, 1))), (std::vector<std::string>{"a -> a", "b -> b", "d -> d", "f -> f"}));
}

TEST(Blocks, ABlockReadsWhatIsCutAndWhatNoLayerChanges) {
  const Model m = model_of("g (float[1,4] x, float[1,4] mask, float[4,4] w1, float[4,4] w2) => (float[1,4] y) { n = Neg(mask) a = MatMul(x, w1) b = MatMul(a, w2) y = Add(b, n) }");
  const Graph& g = *m.graph;
  const auto blocks = find_blocks(g, search_of(g, 1));
  ASSERT_EQ(blocks.size(), 2u);
  std::vector<std::string> inputs;
  for (ValueId v : blocks[1].inputs) inputs.push_back(g.value(v).name);
  std::sort(inputs.begin(), inputs.end());
  EXPECT_EQ(inputs, (std::vector<std::string>{"a", "n", "w2"}));
}

TEST(Blocks, WhatCannotBeComparedIsNoCut) {
  const Model m = model_of("g (float[1,4] x, float[4,4] w1, float[4,4] w2) => (float[1,4] y) { a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) y = Relu(c) }");
  const Graph& g = *m.graph;
  BlockSearch s = search_of(g, 1);
  s.comparable = [&](ValueId v) { return g.value(v).name == "y"; };
  EXPECT_EQ(layers_of(g, find_blocks(g, s)), (std::vector<std::string>{"a c -> y"}));
}

// --- learning ---

/// A float graph with one product, the same with 4-bit weights, and samples of correlated inputs.
struct Problem {
  Model original, quantized;
  std::vector<Tensor> samples;
  NodeId layer = kNone;
  std::map<ValueId, ValueId> became;

  Problem(int64_t in, int64_t out, int count) {
    original = model_of("g (float[1," + std::to_string(in) + "] x) => (float[1," + std::to_string(out) + "] y) { y = Identity(x) }", 21, 10);
    GraphEdit edit(*original.graph);
    const Tensor w = noise(DType::F32, {in, out}, 3), bias = noise(DType::F32, {out}, 4);
    layer = edit.add_node({.op = "Gemm"}, {original.graph->inputs()[0], edit.add_constant(w, "w"), edit.add_constant(bias, "b")}, {edit.add_value("t")});
    const NodeId end = original.graph->producer(original.graph->outputs()[0])->id;
    edit.set_op(end, "Relu");
    edit.set_input(end, 0, original.graph->node(layer).outputs[0]);
    edit.finish();
    const Tensor mix = noise(DType::F32, {in, in}, 5);
    for (int s = 0; s < count; ++s) {
      const Tensor z = noise(DType::F32, {in}, 100 + static_cast<unsigned>(s));
      Tensor x = Tensor::zeros(DType::F32, {1, in});
      for (int64_t i = 0; i < in; ++i)
        for (int64_t k = 0; k < in / 2; ++k) x.mutable_data<float>()[i] += mix.data<float>()[i * in + k] * z.data<float>()[k];
      samples.push_back(x);
    }
    quantized = copy_of(original);
    GraphEdit q(*quantized.graph);
    std::vector<float> rows(static_cast<size_t>(in * out));
    for (int64_t o = 0; o < out; ++o)
      for (int64_t i = 0; i < in; ++i) rows[static_cast<size_t>(o * in + i)] = w.data<float>()[i * out + o];
    const CodedWeights coded = round_to_nearest(rows, fit_grid(rows, out, in, {DType::I4, 0, true}, GridFit::Extremes));
    std::vector<int64_t> codes(rows.size());
    for (int64_t o = 0; o < out; ++o)
      for (int64_t i = 0; i < in; ++i) codes[static_cast<size_t>(i * out + o)] = coded.codes[static_cast<size_t>(o * in + i)];
    const ValueId d = q.add({.op = "DequantizeLinear", .attributes = {{"axis", int64_t{1}, {}}}},
                            {q.add_constant(cast(Tensor::vector(codes).reshaped({in, out}), DType::I4)), q.add_constant(Tensor::vector(coded.grid.scales)), q.add_constant(Tensor::zeros(DType::I4, {out}))});
    q.set_input(layer, 1, d);
    q.finish();
  }

  double noise_of(const Model& m) const {
    double sum = 0;
    for (const Tensor& x : samples) {
      const Tensor a = Session(*original.graph).run(std::map<std::string, Tensor>{{"x", x}})[0], b = Session(*m.graph).run(std::map<std::string, Tensor>{{"x", x}})[0];
      for (int64_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a.data<float>()[i] - b.data<float>()[i]), 2);
    }
    return sum;
  }

  std::vector<BlockReport> learn(Model& m, ReconstructOptions options) const {
    GraphEdit edit(*m.graph);
    Calibration calibration(std::make_shared<HeldSamples>(samples), CalibrationOptions{});
    return reconstruct(edit, *original.graph, became, calibration, options).blocks;
  }
};

std::vector<int64_t> codes_of(const Model& m) { return to_vector<int64_t>(*m.graph->constant(m.graph->producer(node_of(m, "Gemm").input(1))->input(0))); }

TEST(SoftRounding, BeginsAsTheFloatWeightsAndKeepsThoseOnACode) {
  const std::vector<float> weights{0.3f, 0, -1.0f, -0.26f, 9, -9};
  SoftRounding r(weights, {DType::I4, {6}, -8, 7, std::vector<float>(6, 0.5f), std::vector<float>(6, 0)});
  const std::vector<float> expected{0.3f, 0, -1.0f, -0.26f, 3.5f, -4};
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(r.soft().data<float>()[i], expected[i], 2e-6);
  EXPECT_EQ(r.nearest(), (std::vector<int32_t>{1, 0, -2, -1, 7, -8}));
  const std::vector<float> up(6, -1), down(6, 1);
  for (int i = 0; i < 300; ++i) r.step(up.data(), 0, 2, 0.05f);
  EXPECT_EQ(r.codes(), (std::vector<int32_t>{1, 0, -2, 0, 7, -8}));
  for (int i = 0; i < 300; ++i) r.step(down.data(), 0, 2, 0.05f);
  EXPECT_EQ(r.hard().data<float>()[1], 0);
}

TEST(SoftRounding, IsPulledToTheNearerCode) {
  SoftRounding r({0.2f, 0.3f, -0.2f, -0.3f}, {DType::I4, {4}, -8, 7, std::vector<float>(4, 0.5f), std::vector<float>(4, 0)});
  const float gradients[] = {1e-3f, -1e-3f, 1e-3f, -1e-3f};  // small, so that the pull decides
  for (int i = 0; i < 400; ++i) r.step(gradients, 100, 2, 0.05f);
  EXPECT_EQ(r.codes(), (std::vector<int32_t>{0, 1, 0, -1}));
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(r.soft().data<float>()[i], r.hard().data<float>()[i], 1e-3);
}

TEST(Reconstruct, FindsARoundingAmongTheBestOfAll) {
  Problem p(8, 1, 40);  // 256 ways to round
  const double nearest = p.noise_of(p.quantized);
  const CodedLayer layer = *coded_layer(*p.quantized.graph, p.layer);
  std::vector<double> all;
  for (int choice = 0; choice < 256; ++choice) {
    Model m = copy_of(p.quantized);
    GraphEdit edit(*m.graph);
    std::vector<int32_t> codes;
    for (size_t i = 0; i < 8; ++i) {
      const float w = p.original.graph->constant(p.original.graph->node(p.layer).input(1))->data<float>()[i];
      codes.push_back(std::clamp(static_cast<int32_t>(std::floor(w / layer.grid.scales[i])) + (choice >> i & 1), -8, 7));
    }
    set_codes(edit, layer, codes);
    edit.finish();
    all.push_back(p.noise_of(m));
  }
  const auto report = p.learn(p.quantized, {.iterations = 300, .drop = false});
  ASSERT_EQ(report.size(), 1u);
  EXPECT_LT(report[0].noise_after, report[0].noise_before);
  const double learned = p.noise_of(p.quantized);
  EXPECT_LT(learned, 0.4 * nearest);
  EXPECT_LE(std::count_if(all.begin(), all.end(), [&](double n) { return n < learned; }), 256 / 20);
}

TEST(Reconstruct, GivesTheSameBitsForAnyNumberOfThreads) {
  Problem p(24, 16, 12);
  Model one = copy_of(p.quantized), three = copy_of(p.quantized);
  p.learn(one, {.iterations = 40, .batch = 8, .threads = 1});
  p.learn(three, {.iterations = 40, .batch = 8, .threads = 3});
  EXPECT_EQ(codes_of(one), codes_of(three));
  EXPECT_NE(codes_of(one), codes_of(p.quantized));
  const auto bits = [](const Model& m) { return to_vector<double>(*m.graph->constant(node_of(m, "Gemm").input(2))); };
  EXPECT_EQ(bits(one), bits(three));
}

TEST(Reconstruct, CodesStayOnTheGridBesideTheFloatWeight) {
  Problem p(16, 12, 20);
  p.learn(p.quantized, {.iterations = 60});
  const CodedLayer layer = *coded_layer(*p.quantized.graph, p.layer);
  const Tensor& w = *p.original.graph->constant(p.original.graph->node(p.layer).input(1));
  const auto codes = codes_of(p.quantized);
  for (int64_t i = 0; i < w.size(); ++i) {
    const double place = static_cast<double>(w.data<float>()[i]) / static_cast<double>(layer.grid.scales[static_cast<size_t>(i)]);
    EXPECT_LT(std::fabs(place - static_cast<double>(codes[static_cast<size_t>(i)])), 1.0001);
    EXPECT_GE(codes[static_cast<size_t>(i)], -8);
    EXPECT_LE(codes[static_cast<size_t>(i)], 7);
  }
}

}  // namespace
}  // namespace infopt::test
