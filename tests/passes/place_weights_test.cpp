#include "passes/support/place_weights.h"

#include <gtest/gtest.h>

#include "passes/profile.h"
#include "tests/passes/graph_helper.h"
#include "tests/passes/one_sample.h"

namespace infopt::test {
namespace {

const std::vector<GroupRule> kNoGroups;

PlaceWeights weigh(Model& model, const std::vector<Tensor>& samples, int threads) {
  Calibration calibration(std::make_shared<HeldSamples>(samples), CalibrationOptions{});
  Report report;
  PassReport own;
  PassContext context{.model = model, .profile = find_profile("ort-cpu"), .groups = kNoGroups, .calibration = &calibration, .threads = threads, .report = report, .pass_report = own};
  return PlaceWeights(*model.graph, find_layers(*model.graph), context);
}

// Each word's vector is multiplied by its id before they are added: the output's derivative by a place is the id.
const char* const kWords = "g (int64[1,4] x, float[5,6] w0, float[6,3] w1) => (float[1,3] y) { e = Gather(w0, x) a = MatMul(e, w1) m = Cast<to = 1>(x) d = Constant<value = int64[1] {2}>() "
                           "u = Unsqueeze(m, d) b = Mul(a, u) s = Constant<value = int64[1] {1}>() y = ReduceSum<keepdims = 0>(b, s) }";

const std::vector<Tensor> kTexts{Tensor::of<int64_t>({1, 4}, {1, 2, 0, 1}), Tensor::of<int64_t>({1, 4}, {0, 3, 0, 0})};

// Squares 1, 4, 0, 1 and 0, 9, 0, 0, over their mean of 15/8.
TEST(PlaceWeights, AreTheSquaredDerivativesOfTheOutputsOverTheirMean) {
  Model model = graph_of(kWords);
  const NodeId layer = find_layers(*model.graph).at(0).node;
  for (int threads : {1, 2}) {
    const PlaceWeights weights = weigh(model, kTexts, threads);
    for (const auto& [sample, wanted] : {std::pair{0, std::vector<float>{1, 4, 0, 1}}, {1, std::vector<float>{0, 9, 0, 0}}}) {
      const std::vector<float>* found = weights.of(layer, sample);
      ASSERT_TRUE(found);
      ASSERT_EQ(found->size(), 4U);
      for (size_t i = 0; i < 4; ++i) EXPECT_NEAR((*found)[i], wanted[i] * 8 / 15, 1e-5);
    }
    EXPECT_EQ(weights.of(layer, 2), nullptr);
    EXPECT_EQ(weights.mean_of({layer, layer}, 1), *weights.of(layer, 1));
  }
}

TEST(PlaceWeights, AreNoneForImagesAndWhereThereIsNoGradient) {
  Model image = graph_of("g (float[4,6] x, float[6,3] w1) => (float[4,3] y) { y = MatMul(x, w1) }");
  EXPECT_TRUE(weigh(image, {noise(DType::F32, {4, 6}, 1)}, 1).empty());
  Model chosen = graph_of("g (int64[4] x, float[5,6] w0, float[6,3] w1) => (float[4,3] y, int64[4,3] i) { e = Gather(w0, x) a = MatMul(e, w1) k = Constant<value = int64[1] {3}>() y, i = TopK(a, k) }");
  EXPECT_TRUE(weigh(chosen, {Tensor::of<int64_t>({4}, {1, 2, 0, 1})}, 1).empty());
}

}  // namespace
}  // namespace infopt::test
