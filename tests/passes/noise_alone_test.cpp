#include "passes/support/noise_alone.h"

#include <gtest/gtest.h>

#include "tests/passes/graph_helper.h"
#include "tests/passes/one_sample.h"

namespace infopt::test {
namespace {

// The net is homogeneous: one value scaled by 1 + e scales the output alike, and its noise over signal is e², wherever it stands.
TEST(NoiseAlone, OfAValueScaledInAHomogeneousNet) {
  const Model model = graph_of("g (float[2,4] x, float[4,8] w0, float[8,8] w1, float[8,4] w2) => (float[2,4] y) { a = MatMul(x, w0) b = Relu(a) c = MatMul(b, w1) y = MatMul(c, w2) }");
  const Graph& g = *model.graph;
  const std::vector<ValueId> values{g.find_value("x"), g.find_value("b"), g.find_value("c")};
  const std::vector<float> by{1.01f, 0.875f, 2};
  Calibration calibration(std::make_shared<HeldSamples>(std::vector<Tensor>{noise(DType::F32, {2, 4}, 8), noise(DType::F32, {2, 4}, 9)}), CalibrationOptions{});
  for (int threads : {1, 2}) {
    size_t asked = 0;
    const std::vector<double> found = noise_alone(
        g, values,
        [&](GraphEdit& edit, ValueId v) {
          const ValueId scaled = edit.add({.op = "Mul"}, {v, edit.add_constant(Tensor::scalar(by.at(asked++)))});
          edit.replace_uses_except(v, scaled, edit.graph().value(scaled).producer);
        },
        calibration, 2, threads);
    ASSERT_EQ(found.size(), 3U);
    EXPECT_NEAR(found[0], 1e-4, 1e-7);
    EXPECT_NEAR(found[1], 0.125 * 0.125, 1e-7);
    EXPECT_NEAR(found[2], 1, 1e-6);
  }
}

TEST(NoiseAlone, IsNothingWhereNoOutputIsOfFloats) {
  const Model model = graph_of("g (float[2,4] x) => (int64[2] y) { y = ArgMax<axis=1, keepdims=0>(x) }");
  Calibration calibration(std::make_shared<OneSample>(noise(DType::F32, {2, 4}, 8)), CalibrationOptions{});
  EXPECT_TRUE(noise_alone(*model.graph, {model.graph->find_value("x")}, [](GraphEdit&, ValueId) {}, calibration, 1, 1).empty());
}

}  // namespace
}  // namespace infopt::test
