#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

TEST(ShareNodes, MakesChainsThatComputeTheSameOne) {
  expect_rewritten("share_nodes",
                   {{"a chain", "g (float[N,4] x) => (float[N,4] y) { a = Relu(x) b = Relu(x) c = Neg(a) d = Neg(b) y = Add(c, d) }", "Relu Neg Add"},
                    {"attributes in another order", "g (float[N,4] x) => (float[N,4] y) { a = Gemm <alpha = 2.0, transB = 1> (x, x) b = Gemm <transB = 1, alpha = 2.0> (x, x) p = Add(a, b) y = MatMul(p, x) }",
                     "Gemm Add MatMul"},
                    {"several outputs", "g (float[N,4] x) => (float[N,2] y) { a, b = Split <axis = 1> (x) c, d = Split <axis = 1> (x) p = Add(a, d) y = Add(p, b) }", "Split Add Add"}},
                   0);
}

TEST(ShareNodes, LeavesWhatDiffers) {
  expect_rewritten("share_nodes",
                   {{"attributes", "g (float[N,4] x) => (float[N,4] y) { a = Softmax <axis = 0> (x) b = Softmax <axis = 1> (x) y = Add(a, b) }", "Softmax Softmax Add"},
                    {"the inputs' order", "g (float[N,4] x, float[N,4] z) => (float[N,4] y) { a = Sub(x, z) b = Sub(z, x) y = Mul(a, b) }", "Sub Sub Mul"},
                    {"an output that the first leaves out", "g (float[1,1,4,4] x) => (float[1,1,3,3] y, int64[1,1,3,3] i) { a = MaxPool <kernel_shape = [2,2]> (x) b, i = MaxPool <kernel_shape = [2,2]> (x) y = Add(a, b) }",
                     "MaxPool MaxPool Add"},
                    {"two outputs of the model", "g (float[N] x) => (float[N] y, float[N] z) { y = Relu(x) z = Relu(x) }", "Relu Relu"}},
                   0);
}

TEST(ShareNodes, LeavesRandomNumbersQuantizationAndUnknownOperators) {
  EXPECT_EQ(ops(after(graph_of("g (float[4] x) => (float[4] y) { a = RandomNormalLike(x) b = RandomNormalLike(x) y = Add(a, b) }"), "share_nodes")), "RandomNormalLike RandomNormalLike Add");
  const std::string coded = "g (float[N,4] x) => (float[N,4] y) <float s = {0.5}, uint8 z = {3}> { q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z) b = DequantizeLinear(q, s, z) c = Relu(b) y = Add(a, c) }";
  EXPECT_EQ(ops(after(graph_of(coded), "share_nodes")), "QuantizeLinear DequantizeLinear DequantizeLinear Relu Add");
  const Model foreign = parse_model(proto_of("<ir_version: 8, opset_import: [\"\": 17, \"acme\": 1]> g (float[2] x) => (float[2] y) { a = acme.Draw(x) b = acme.Draw(x) y = Add(a, b) }").SerializeAsString());
  EXPECT_EQ(ops(after(foreign, "share_nodes")), "Draw Draw Add");
}

TEST(ShareNodes, AnOutputOfTheModelKeepsItsName) {
  const Model before = graph_of("g (float[N] x) => (float[N] y, float[N] z) { a = Relu(x) z = Neg(a) y = Relu(x) }");
  const Model result = after(before, "share_nodes");
  EXPECT_EQ(ops(result), "Relu Neg");
  EXPECT_EQ(result.graph->value(result.graph->outputs()[0]).name, "y");
  EXPECT_EQ(difference(before, result), 0);
}

TEST(ShareNodes, FollowsBodiesButSharesNothingAcrossThem) {
  const Model before = graph_of(
      "g (bool c, float[N] x) => (float[N] y) { r = Relu(x) b = If (c) <then_branch = t () => (float[N] p) { s = Relu(x) u = Relu(x) p = Add(s, u) }, else_branch = e () => (float[N] q) { q = Neg(x) }> y = Add(b, r) }");
  const Model result = after(before, "share_nodes");
  EXPECT_EQ(ops(result), "Relu If[Relu Add][Neg] Add");
  EXPECT_EQ(difference(before, result), 0);
}

}  // namespace
}  // namespace infopt
