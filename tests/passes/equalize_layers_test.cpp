#include <gmock/gmock.h>

#include "tests/passes/graph_helper.h"

namespace infopt::test {
namespace {

/// A constant with channels of very different ranges along `axis`: noise times 3^(−2…2) in an order that hangs on `seed`.
void spread(Model& model, const std::string& name, int64_t axis, unsigned seed) {
  GraphEdit edit(*model.graph);
  const ValueId id = model.graph->find_value(name);
  const Tensor old = model.graph->value(id).constant;
  std::vector<double> values = to_vector<double>(old);
  int64_t inner = 1;
  for (int64_t i = axis + 1; i < old.rank(); ++i) inner *= old.dim(i);
  for (size_t i = 0; i < values.size(); ++i) values[i] *= std::pow(3.0, static_cast<double>((static_cast<int64_t>(i) / inner % old.dim(axis) * 7 + seed) % 5) - 2);
  edit.set_constant(id, cast(Tensor::vector(values).reshaped(old.shape()), old.dtype()));
}

/// The largest magnitude of each channel along `axis`.
std::vector<double> ranges(const Tensor& t, int64_t axis) {
  const std::vector<double> values = to_vector<double>(t);
  std::vector<double> out(static_cast<size_t>(t.dim(axis)), 0);
  int64_t inner = 1;
  for (int64_t i = axis + 1; i < t.rank(); ++i) inner *= t.dim(i);
  for (size_t i = 0; i < values.size(); ++i) {
    double& most = out[static_cast<size_t>(static_cast<int64_t>(i) / inner % t.dim(axis))];
    most = std::max(most, std::fabs(values[i]));
  }
  return out;
}

/// The constant weights of the node that makes the value.
const Tensor& weights_of(const Model& model, const std::string& output) {
  const Graph& g = *model.graph;
  return *g.constant(g.producer(g.find_value(output))->input(1));
}

TEST(EqualizeLayers, APairGetsThePapersRanges) {
  Model model = graph_of("g (float[N,1,2,2] x, float[3,1,1,1] w1, float[3] wb, float[1,3,1,1] w2) => (float[N,1,2,2] y) { a = Conv(x, w1, wb) b = Relu(a) y = Conv(b, w2) }");
  {
    GraphEdit edit(*model.graph);
    edit.set_constant(model.graph->find_value("w1"), Tensor::of<float>({3, 1, 1, 1}, {4, -1, 0.25f}));
    edit.set_constant(model.graph->find_value("wb"), Tensor::of<float>({3}, {1, 2, 3}));
    edit.set_constant(model.graph->find_value("w2"), Tensor::of<float>({1, 3, 1, 1}, {1, 4, -1}));
  }
  const Model result = after(model, "equalize_layers");
  // numpy: r1, r2 = np.array([4, 1, .25]), np.array([1, 4, 1]); s = np.sqrt(r1 / r2) -> [2, .5, .5]; r1 / s = r2 * s -> [2, 2, .5]
  EXPECT_THAT(to_vector<float>(weights_of(result, "a")), testing::Pointwise(testing::FloatEq(), std::vector<float>{2, -2, 0.5f}));
  EXPECT_THAT(to_vector<float>(weights_of(result, "y")), testing::Pointwise(testing::FloatEq(), std::vector<float>{2, 2, -0.5f}));
  EXPECT_THAT(to_vector<float>(constant_of(result, "Conv", 2)), testing::Pointwise(testing::FloatEq(), std::vector<float>{0.5f, 4, 6}));
}

TEST(EqualizeLayers, AChainOfThreeSettlesWithLikeRangesOnBothSidesOfEach) {
  Model model = graph_of(
      "g (float[N,4,5,5] x, float[6,4,3,3] w1, float[6] wa, float[6,1,3,3] w2, float[6] wb, float[5,6,1,1] w3) => (float[N,5,5,5] y) "
      "{ a = Conv <pads = [1,1,1,1]> (x, w1, wa) b = Relu(a) c = Conv <group = 6, pads = [1,1,1,1]> (b, w2, wb) d = LeakyRelu <alpha = 0.2> (c) y = Conv(d, w3) }");
  for (unsigned seed = 0; seed < 4; ++seed) {
    spread(model, "w1", 0, seed), spread(model, "w2", 0, seed + 1), spread(model, "w3", 1, seed + 3);
    const Model result = after(model, "equalize_layers");
    EXPECT_LE(difference(model, result), kRounding);
    const auto first = ranges(weights_of(result, "a"), 0), middle = ranges(weights_of(result, "c"), 0), last = ranges(weights_of(result, "y"), 1);
    const auto r1 = ranges(weights_of(model, "a"), 0), r2 = ranges(weights_of(model, "c"), 0), r3 = ranges(weights_of(model, "y"), 1);
    for (size_t c = 0; c < 6; ++c) {  // a depthwise kernel lies in two nets: the three ranges of a channel are one, and their product stays
      EXPECT_NEAR(first[c] / middle[c], 1, 1e-3);
      EXPECT_NEAR(last[c] / middle[c], 1, 1e-3);
      EXPECT_NEAR(middle[c], std::cbrt(r1[c] * r2[c] * r3[c]), 1e-3 * middle[c]);
    }
  }
}

TEST(EqualizeLayers, KeepsTheFunctionThroughWhatIsHomogeneous) {
  const std::string conv = "g (float[N,4,6,6] x, float[6,4,3,3] w1, float[6] wb, float[3,6,1,1] w2, float[6,1,1] wr, float[6,5] wg, float[6,4,1,1] w3, float[24,5] wf) => (float[A,B,C,D] y) ";
  const std::string pair = "g (float[N,4,6,6] x, float[6,4,3,3] w1, float[6] wb, float[6,1,1] wr, float[6,5] wg, float[24,5] wf) => (float[N,5] y) ";
  for (const std::string& body : {conv + "{ a = Conv(x, w1, wb) b = MaxPool <kernel_shape = [2,2]> (a) c = PRelu(b, wr) y = Conv(c, w2) }",
                                  conv + "{ a = Conv(x, w1, wb) b = Add(a, wr) c = Relu(b) d = Mul(wr, c) y = Conv(d, w2) }",
                                  conv + "{ a = Conv <pads = [1,1,1,1]> (x, w1, wb) b = Conv(x, w3) c = Add(a, b) d = Relu(c) y = Conv(d, w2) }",
                                  pair + "{ a = Conv(x, w1, wb) b = Relu(a) c = GlobalAveragePool(b) d = Flatten(c) y = MatMul(d, wg) }",
                                  pair + "{ a = Conv <strides = [2,2]> (x, w1, wb) b = Relu(a) d = Flatten(b) y = Gemm(d, wf) }"}) {
    Model model = graph_of(body);
    if (body.find("Gemm") == std::string::npos) spread(model, "w1", 0, 2);
    EditLog log;
    const Model result = after(model, "equalize_layers", {}, &log);
    EXPECT_TRUE(log.changed()) << body;
    EXPECT_EQ(ops(result), ops(model));
    EXPECT_LE(difference(model, result), kRounding) << body;
  }
}

TEST(EqualizeLayers, LeavesWhatIsNotHomogeneousOrIsReadElsewhere) {
  const std::string head = "g (float[N,4] x, float[4,6] w1, float[6] wb, float[6,5] w2) => (float[N,5] y, float[N,6] z) ";
  for (const std::string body : {"{ a = Gemm(x, w1, wb) b = Sigmoid(a) y = Gemm(b, w2) z = Neg(b) }", "{ a = Gemm(x, w1, wb) z = Relu(a) y = Gemm(z, w2) }", "{ a = Gemm(x, w1, wb) b = Relu(a) y = Gemm(b, w2) z = Exp(b) }"}) {
    Model model = graph_of(head + body);
    spread(model, "w1", 1, 3);
    EditLog log;
    after(model, "equalize_layers", {}, &log);
    EXPECT_FALSE(log.changed()) << body;
  }
}

TEST(EqualizeLayers, AClipStaysOrGetsABoundForEachChannel) {
  Model model = graph_of("g (float[N,4,5,5] x, float[6,4,1,1] w1, float[3,6,1,1] w2, float wlo, float whi) => (float[N,3,5,5] y) { a = Conv(x, w1) b = Clip(a, wlo, whi) y = Conv(b, w2) }");
  {
    GraphEdit edit(*model.graph);
    edit.set_constant(model.graph->find_value("wlo"), Tensor::scalar(0.0f));
    edit.set_constant(model.graph->find_value("whi"), Tensor::scalar(2.0f));
  }
  spread(model, "w1", 0, 1);
  EditLog log;
  after(model, "equalize_layers", {}, &log);
  EXPECT_FALSE(log.changed());
  const Model split = after(model, "equalize_layers", {{"clip", std::string("per_channel")}});
  EXPECT_THAT(ops(split), testing::HasSubstr("Conv Relu Min Conv"));
  EXPECT_LE(difference(model, split), kRounding);
}

TEST(EqualizeLayers, DeadAndUnreadChannelsDoNotSetTheRange) {
  Model model = graph_of("g (float[N,1] x, float[1,4] w1, float[4,1] w2) => (float[N,1] y) { a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) }");
  {
    GraphEdit edit(*model.graph);
    edit.set_constant(model.graph->find_value("w1"), Tensor::of<float>({1, 4}, {1, 0, 100, 0}));
    edit.set_constant(model.graph->find_value("w2"), Tensor::of<float>({4, 1}, {4, 100, 0, 0}));
  }
  const Model result = after(model, "equalize_layers");
  EXPECT_THAT(to_vector<float>(weights_of(result, "a")), testing::Pointwise(testing::FloatEq(), std::vector<float>{2, 0, 2, 0}));
  EXPECT_THAT(to_vector<float>(weights_of(result, "y")), testing::Pointwise(testing::FloatEq(), std::vector<float>{2, 2, 0, 0}));
}

}  // namespace
}  // namespace infopt::test
