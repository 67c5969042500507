#include "passes/support/layer_inputs.h"

#include "tests/passes/graph_helper.h"

namespace infopt::test {
namespace {

std::vector<double> shares(const std::string& node, const std::string& weights, const Shape& input) {
  const Model m = graph_of("g (float[" + std::string(input.size() == 3 ? "n,c,l" : "n,c,h,v") + "] x, float[" + weights + "] w) => (y) { y = " + node + " }");
  const auto layers = find_layers(*m.graph);
  EXPECT_EQ(layers.size(), 1u);
  return tap_shares(*m.graph, layers.front(), input);
}

// Counted by hand: positions of the output at which a tap reads the input, over all positions.
TEST(TapShares, OuterTapsMeetPadsAtTheEnds) {
  EXPECT_EQ(shares("Conv<pads = [1, 1]>(x, w)", "2,3,3", {1, 3, 4}), (std::vector<double>{0.75, 1, 0.75}));
  EXPECT_EQ(shares("Conv<pads = [1, 1]>(x, w)", "2,3,3", {1, 3, 1}), (std::vector<double>{0, 1, 0}));
  EXPECT_EQ(shares("Conv<pads = [1, 1], strides = [2]>(x, w)", "2,3,3", {1, 3, 4}), (std::vector<double>{0.5, 1, 1}));
  EXPECT_EQ(shares("Conv<auto_pad = \"SAME_UPPER\", dilations = [2]>(x, w)", "2,3,3", {1, 3, 8}), (std::vector<double>{0.75, 1, 0.75}));
  EXPECT_EQ(shares("Conv(x, w)", "2,3,3", {1, 3, 9}), (std::vector<double>{1, 1, 1}));
}

TEST(TapShares, AxesMultiply) {
  EXPECT_EQ(shares("Conv<pads = [1, 0, 1, 0]>(x, w)", "2,3,3,2", {1, 3, 4, 5}), (std::vector<double>{0.75, 0.75, 1, 1, 0.75, 0.75}));
}

TEST(TapShares, TransposedOutputsReadOnlySomeTaps) {
  EXPECT_EQ(shares("ConvTranspose<strides = [2, 2]>(x, w)", "3,4,2,2", {1, 3, 5, 5}), (std::vector<double>{0.25, 0.25, 0.25, 0.25}));
  EXPECT_EQ(shares("ConvTranspose(x, w)", "3,4,2", {1, 3, 3}), (std::vector<double>{0.75, 0.75}));
}

TEST(TapShares, AreUnknownWhereTheShapeDoesNotFit) {
  EXPECT_TRUE(shares("Conv(x, w)", "2,3,3", {1, 3, 2}).empty());
}

}  // namespace
}  // namespace infopt::test
