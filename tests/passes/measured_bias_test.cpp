#include "passes/support/measured_bias.h"

#include "passes/support/coded_layers.h"
#include "tests/passes/graph_helper.h"
#include "tests/passes/one_sample.h"

namespace infopt::test {
namespace {

Model net(const std::string& first, const std::string& second) {
  return model_of("g (float[1,2] x) => (float[1,1] y) <float[1] b = {0}, float[1] c = {0}, " + first + ", " + second + R"(, float s = {1}> {
    w = Identity(p) a = Gemm(x, w, b) r = Relu(a) v = Identity(q) y = Gemm(r, v, c) })",
                  17);
}

/// Two products with weights (1.4, 0.6) and 2.5, rounded to (1, 1) and 2.
struct Rounded {
  Model original = net("float[2,1] p = {1.4, 0.6}", "float[1,1] q = {2.5}"), quantized = net("int8[2,1] p = {1, 1}", "int8[1,1] q = {2}");
  std::vector<NodeId> layers;

  Rounded() {
    for (Model* m : {&original, &quantized}) {
      GraphEdit edit(*m->graph);
      for (NodeId id : std::vector<NodeId>(m->graph->order())) {
        const Node& n = m->graph->node(id);
        if (n.is("Gemm") && m == &original) layers.push_back(id);
        if (!n.is("Identity") || m == &original) continue;
        edit.set_op(id, "DequantizeLinear");
        ValueId scale = kNone;
        for (size_t v = 0; v < m->graph->value_capacity(); ++v)
          if (m->graph->value(static_cast<ValueId>(v)).name == "s") scale = static_cast<ValueId>(v);
        edit.set_inputs(id, {n.input(0), scale});
      }
      edit.finish();
    }
  }

  std::vector<float> biases_after(const std::vector<std::vector<float>>& samples, int64_t changed, int threads = 1) {
    std::vector<Tensor> tensors;
    for (const auto& s : samples) tensors.push_back(Tensor::vector(s).reshaped({1, 2}));
    Calibration calibration(std::make_shared<HeldSamples>(tensors), {});
    GraphEdit edit(*quantized.graph);
    EXPECT_EQ(correct_biases(edit, *original.graph, layers, calibration, threads), changed);
    edit.finish();
    std::vector<float> biases;
    for (NodeId id : layers) biases.push_back(coded_layer(*quantized.graph, id)->bias_values.data<float>()[0]);
    return biases;
  }
};

// By hand. Samples (1, 0) and (2, 0): the first product is off by -0.4 and -0.8, mean m = -0.6, squared standard error e² = 0.04, so that
// 0.6 · (1 - e²/m²) = 8/15 goes into its bias. The second then reads 23/15 and 38/15 instead of 1.4 and 2.8, is off by 2·23/15 - 3.5 = -13/30 and
// 2·38/15 - 7 = -58/30, m = -71/60, e² = 0.5625: 71/60 · (1 - 0.5625·3600/5041).
TEST(MeasuredBias, EachLayerIsCorrectedBehindTheCorrectedOnesBeforeIt) {
  for (int threads : {1, 3}) {
    const auto biases = Rounded().biases_after({{1, 0}, {2, 0}}, 2, threads);
    EXPECT_NEAR(biases[0], 8.0 / 15, 1e-6);
    EXPECT_NEAR(biases[1], 71.0 / 60 * (1 - 0.5625 * 3600 / 5041), 1e-6);
  }
}

TEST(MeasuredBias, AnErrorThatEverySampleHasGoesWhole) {
  const auto biases = Rounded().biases_after({{1, 0}, {1, 0}, {1, 0}}, 2);
  EXPECT_NEAR(biases[0], 0.4, 1e-6);
  EXPECT_NEAR(biases[1], 3.5 - 2 * 1.4, 1e-6);
}

// Off by -1.2 and 1.2 in the first; by -5.5 and 0.5 in the second, where m² = 6.25 is below e² = 9.
TEST(MeasuredBias, WhatMayBeChanceStays) { EXPECT_EQ(Rounded().biases_after({{4, 1}, {1, 4}}, 0), (std::vector<float>{0, 0})); }

TEST(MeasuredBias, ASingleSampleSaysNothing) { EXPECT_EQ(Rounded().biases_after({{1, 0}}, 0), (std::vector<float>{0, 0})); }

}  // namespace
}  // namespace infopt::test
