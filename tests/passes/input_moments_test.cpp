#include "passes/support/input_moments.h"

#include <gtest/gtest.h>

#include "lib/runtime/layout.h"
#include "passes/support/gptq.h"
#include "tests/passes/graph_helper.h"

namespace infopt::test {
namespace {

double energy(const Tensor& t) {
  double sum = 0;
  for (double v : to_vector<double>(t)) sum += v * v;
  return sum;
}

// Σ‖W·x‖² over all places is tr(W·H·Wᵀ): the energy of the layer's output.
TEST(InputMoments, HoldTheEnergyOfTheOutputsOfAnyLayer) {
  for (const std::string text : {"g (float[3,6,9,7] x, float[8,6,3,3] w) => (float[a,b,c,d] y) { y = Conv<pads = [1,1,1,1]>(x, w) }",
                                 "g (float[3,6,9,7] x, float[9,2,3,2] w) => (float[a,b,c,d] y) { y = Conv<group = 3, strides = [2,1], dilations = [1,2], pads = [0,1,2,1]>(x, w) }",
                                 "g (float[3,6,9,7] x, float[6,1,3,3] w) => (float[a,b,c,d] y) { y = Conv<group = 6, auto_pad = \"SAME_UPPER\", strides = [2,2]>(x, w) }",
                                 "g (float[3,6,9] x, float[4,6,2] w) => (float[a,b,c] y) { y = Conv(x, w) }", "g (float[3,5,6] x, float[6,4] w) => (float[a,b,c] y) { y = MatMul(x, w) }",
                                 "g (float[5,6] x, float[4,6] w) => (float[a,b] y) { y = Gemm<transB = 1>(x, w) }"}) {
    const Model model = graph_of(text);
    const Graph& graph = *model.graph;
    ASSERT_EQ(find_layers(graph).size(), 1u) << text;
    const Layer layer = find_layers(graph).at(0);
    InputMoments moments(graph, layer);
    double expected = 0;
    for (unsigned sample : {1u, 2u}) {
      const Tensor x = noise(DType::F32, *graph.value(graph.inputs()[0]).type.fixed_shape(), sample);
      expected += energy(Session(graph).run(std::map<std::string, Tensor>{{"x", x}})[0]);
      const bool last = layer.convolution && sample == 2;
      const Tensor lying = last ? convert_layout(x, Layout::Plain, Layout::ChannelsLast) : x;
      moments.add({lying, last ? Layout::ChannelsLast : Layout::Plain}, 2);
    }
    moments.finish(2);
    const std::vector<float> w = read_weights(layer, *graph.constant(layer.weights));
    const size_t each = w.size() / static_cast<size_t>(layer.groups);
    double found = 0;
    for (int64_t g = 0; g < layer.groups; ++g) {
      const auto from = w.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(g) * each);
      found += quadratic_error({from, from + static_cast<std::ptrdiff_t>(each)}, std::vector<float>(each, 0.0f), layer.out / layer.groups, moments.h(g));
    }
    EXPECT_NEAR(found, expected, 1e-4 * expected) << text;
  }
}

TEST(InputMoments, APlaceOfWeightTwoCountsAsTwoAndOneWithoutWeightNotAtAll) {
  const Model model = graph_of("g (float[3,2] x, float[2,4] w) => (float[a,b] y) { y = MatMul(x, w) }");
  const Layer layer = find_layers(*model.graph).at(0);
  const Tensor x = Tensor::of<float>({3, 2}, {1, 2, 30, 40, -5, 6}), repeated = Tensor::of<float>({3, 2}, {1, 2, 1, 2, -5, 6});
  InputMoments weighed(*model.graph, layer), plain(*model.graph, layer);
  const std::vector<float> weights{2, 0, 1}, w = read_weights(layer, *model.graph->constant(layer.weights)), none(w.size(), 0.0f);
  weighed.add({x, Layout::Plain}, 1, &weights);
  plain.add({repeated, Layout::Plain}, 1);
  weighed.finish(1), plain.finish(1);
  EXPECT_EQ(weighed.places(), 1);  // 3² / 5
  EXPECT_EQ(plain.places(), 3);
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(weighed.h(0)[i], plain.h(0)[i], 1e-5);
  for (size_t o = 0; o < 4; ++o) EXPECT_NEAR(weighed.shift(w, none, 0)[o], plain.shift(w, none, 0)[o], 1e-5);
  weighed.center(), plain.center();
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(weighed.h(0)[i], plain.h(0)[i], 1e-4);
}

TEST(InputMoments, CorrectedWeightsMakeOfTheQuantizedInputsWhatTheWeightsMadeOfTheFloatOnes) {
  const Model model = graph_of("g (float[40,6] x, float[6,4] w) => (float[a,b] y) { y = MatMul(x, w) }");
  const Layer layer = find_layers(*model.graph).at(0);
  const Tensor x = noise(DType::F32, {40, 6}, 1), mix = noise(DType::F32, {6, 6}, 2);
  std::vector<float> other(240, 0.0f);  // x·(1 + mix/10): what another weight could undo
  for (size_t r = 0; r < 40; ++r)
    for (size_t i = 0; i < 6; ++i) {
      other[r * 6 + i] = x.data<float>()[r * 6 + i];
      for (size_t j = 0; j < 6; ++j) other[r * 6 + i] += 0.1f * x.data<float>()[r * 6 + j] * mix.data<float>()[j * 6 + i];
    }
  const Tensor seen = Tensor::of<float>({40, 6}, other);
  InputMoments moments(*model.graph, layer);
  moments.add({seen, Layout::Plain}, {x, Layout::Plain}, 1);
  moments.finish(1);
  const std::vector<float> w = read_weights(layer, *model.graph->constant(layer.weights)), corrected = moments.corrected(w, 4, 0, 0, 1);
  for (size_t r = 0; r < 40; ++r)
    for (size_t o = 0; o < 4; ++o) {
      double wanted = 0, found = 0;
      for (size_t i = 0; i < 6; ++i) {
        wanted += static_cast<double>(w[o * 6 + i]) * static_cast<double>(x.data<float>()[r * 6 + i]);
        found += static_cast<double>(corrected[o * 6 + i]) * static_cast<double>(other[r * 6 + i]);
      }
      EXPECT_NEAR(found, wanted, 1e-3);
    }
}

}  // namespace
}  // namespace infopt::test
