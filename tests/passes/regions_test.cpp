// Which operators become integer. Expected: ONNX Runtime 1.32 pools 8-bit codes fast only channels last, which is how they come out of its integer convolutions.
#include "passes/support/regions.h"

#include <gtest/gtest.h>

#include "tests/passes/graph_helper.h"

namespace infopt::test {
namespace {

std::vector<Observed> seen_in(const Graph& graph) {
  std::vector<Observed> seen(graph.value_capacity());
  for (size_t i = 0; i < seen.size(); ++i) {
    if (!graph.value_alive(static_cast<ValueId>(i))) continue;
    const Type& type = graph.value(static_cast<ValueId>(i)).type;
    seen[i].dtype = type.dtype;
    for (const Dim& d : type.shape) seen[i].shape.push_back(d.size);
  }
  return seen;
}

void check_pools(const std::string& first, const std::string& second, size_t step) {
  const Model model = graph_of("g (float[1,3,300,160] x, float[32,3,3,3] w1, float[64,32,3,3] w2, float[64,64,3,3] w3) => (float[1,64,75,40] y) { a = Conv <pads = [1,1,1,1]> (x, w1) " + first +
                               " c = MaxPool <kernel_shape = [2,2], strides = [2,2]> (b) d = Conv <pads = [1,1,1,1]> (c, w2) " + second +
                               " f = MaxPool <kernel_shape = [2,2], strides = [2,2]> (e) y = Conv <pads = [1,1,1,1]> (f, w3) }");
  const Graph& graph = *model.graph;
  const auto seen = seen_in(graph);
  const CostModel costs(graph, seen, find_profile("ort-cpu"));
  const auto integer = [&](const std::vector<bool>& keep_float, size_t place) {
    return choose_regions(graph, seen, costs, keep_float, std::vector<bool>(graph.node_capacity())).is_integer(graph.order()[place]);
  };
  const size_t pool = step, conv = step + 1, next_pool = 2 * step + 1;
  std::vector<bool> keep_float(graph.node_capacity());
  EXPECT_TRUE(integer(keep_float, conv));
  EXPECT_TRUE(integer(keep_float, next_pool + 1));
  EXPECT_EQ(integer(keep_float, pool), integer(keep_float, 0));
  keep_float[static_cast<size_t>(graph.order()[conv])] = true;
  EXPECT_FALSE(integer(keep_float, next_pool));
}

TEST(ChooseRegions, PutsNoPoolBetweenAFloatConvolutionAndIntegerOnes) {
  check_pools("b = LeakyRelu (a)", "e = LeakyRelu (d)", 2);
  check_pools("s = Sigmoid (a) b = Mul (a, s)", "t = Sigmoid (d) e = Mul (d, t)", 3);
}

}  // namespace
}  // namespace infopt::test
