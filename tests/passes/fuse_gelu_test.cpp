#include <gmock/gmock.h>

#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

std::string gelu(const std::string& nodes) {
  return "g (float[N,8] x, float[N,8] u) => (float[N,8] y) <float root = {1.4142135}, float inverse = {0.70710677}, float one = {1.0}, float half = {0.5}, float two = {2.0}, float three = {3.0}, float c = {0.044715}, float k = {0.7978846}> { " + nodes + " }";
}
const std::string kErf = "a = Div(x, root) e = Erf(a) p = Add(e, one) ", kErfMul = "a = Mul(x, inverse) e = Erf(a) p = Add(one, e) ";
const std::string kKnown = "Div Erf Add Mul Mul";

TEST(FuseGelu, WritesEveryFormAsTheOneThatEnginesKnow) {
  expect_rewritten("fuse_gelu",
                   {{"as they know it", gelu(kErf + "q = Mul(x, p) y = Mul(q, half)"), kKnown},
                    {"as they know it too", gelu(kErf + "q = Mul(x, half) y = Mul(q, p)"), "Div Erf Add Mul Mul"},
                    {"x·0.7071", gelu(kErfMul + "q = Mul(x, p) y = Mul(q, half)"), kKnown},
                    {"half at the bracket", gelu(kErf + "q = Mul(p, half) y = Mul(x, q)"), kKnown},
                    {"by two", gelu(kErf + "q = Mul(x, p) y = Div(q, two)"), kKnown}},
                   kRounding);
  const Model result = after(graph_of(gelu(kErfMul + "q = Mul(half, p) y = Mul(q, x)")), "fuse_gelu");
  const Graph& g = *result.graph;
  const Node& last = g.node(g.order().back());
  EXPECT_EQ(to_scalar<float>(*g.constant(last.input(1))), 0.5f);  // (x·(1 + erf))·½
  EXPECT_EQ(g.producer(last.input(0))->input(0), g.inputs()[0]);
}

TEST(FuseGelu, MakesTheOperatorOnDemandWhereTheOpsetHasIt) {
  const Settings settings{{"as", std::string("operator")}};
  const std::string cube = "s = Mul(x, x) t = Mul(s, x) ", tail = "b = Mul(c, t) i = Add(x, b) j = Mul(k, i) h = Tanh(j) p = Add(h, one) q = Mul(x, half) y = Mul(q, p)";
  expect_rewritten("fuse_gelu",
                   {{"erf", gelu(kErf + "q = Mul(x, p) y = Mul(q, half)"), "Gelu", 20},
                    {"tanh", gelu(cube + tail), "Gelu", 20},
                    {"tanh of Pow", gelu("t = Pow(x, three) " + tail), "Gelu", 20},
                    {"an older opset", gelu(kErf + "q = Mul(x, p) y = Mul(q, half)"), kKnown, 17}},
                   kRounding, settings);
  EXPECT_EQ(node_of(after(graph_of(gelu(cube + tail), 20), "fuse_gelu", settings), "Gelu").s("approximate", "none"), "tanh");
  EXPECT_EQ(node_of(after(graph_of(gelu(kErf + "q = Mul(x, p) y = Mul(q, half)"), 20), "fuse_gelu", settings), "Gelu").s("approximate", "none"), "none");
}

TEST(FuseGelu, LeavesWhatOnlyLooksLikeIt) {
  EditLog log;
  for (const std::string& nodes : {kErf + "q = Mul(u, p) y = Mul(q, half)", kErf + "q = Mul(x, p) y = Mul(q, two)", std::string("a = Div(x, two) e = Erf(a) p = Add(e, one) q = Mul(x, p) y = Mul(q, half)"),
                                   kErf + "q = Mul(p, half) z = Mul(x, q) y = Add(z, e)"}) {
    const Model before = graph_of(gelu(nodes));
    EXPECT_EQ(ops(after(before, "fuse_gelu", {}, &log)), ops(before)) << nodes;
    EXPECT_TRUE(log.notes.empty());
  }
}

TEST(FuseGelu, TellsOfThoseThatItLeaves) {
  EditLog log;
  after(graph_of(gelu(kErf + "q = Mul(x, p) y = Mul(q, half)")), "fuse_gelu", {}, &log);
  EXPECT_THAT(log.notes, testing::ElementsAre(testing::HasSubstr("is a Gelu")));
  EXPECT_FALSE(log.changed());
}

}  // namespace
}  // namespace infopt
