#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

std::string graph(const std::string& nodes) {
  return "g (float[N,3,4,4] x, float[N,3,4,4] u) => (float[N,3,4,4] y) <float three = {3.0}, float zero = {0.0}, float[1] six = {6.0}, float six0 = {6.0}, float[1,1,1,1] sixth = {0.16666667}, float two = {2.0}> { " + nodes + " }";
}
const std::string kGate = "a = Add(x, three) c = Clip(a, zero, six0) ";

TEST(FuseHardSwish, RecognizesEveryFormThatExportersWrite) {
  expect_rewritten("fuse_hardswish",
                   {{"x·(clip/6)", graph(kGate + "h = Div(c, six) y = Mul(x, h)"), "HardSwish"},
                    {"(clip·1/6)·x", graph(kGate + "h = Mul(sixth, c) y = Mul(h, x)"), "HardSwish"},
                    {"(x·clip)/6", graph(kGate + "p = Mul(x, c) y = Div(p, six)"), "HardSwish"},
                    {"(clip·x)·1/6", graph(kGate + "p = Mul(c, x) y = Mul(p, sixth)"), "HardSwish"},
                    {"Min and Max", graph("a = Add(three, x) m = Max(a, zero) c = Min(m, six0) p = Mul(x, c) y = Div(p, six)"), "HardSwish"},
                    {"Max and Min", graph("a = Add(three, x) m = Min(six0, a) c = Max(zero, m) p = Mul(x, c) y = Div(p, six)"), "HardSwish"},
                    {"HardSigmoid", graph("h = HardSigmoid <alpha=0.16666667, beta=0.5> (x) y = Mul(x, h)"), "HardSwish"},
                    {"the gate alone", graph(kGate + "y = Div(c, six)"), "HardSigmoid"},
                    {"the gate on another value", graph(kGate + "h = Mul(c, sixth) y = Mul(u, h)"), "HardSigmoid Mul"}},
                   kRounding);
}

TEST(FuseHardSwish, ReadsClipsAttributesAndBringsTheOpset) {
  const Model before = graph_of("g (float[N,3] x) => (float[N,3] y) <float three = {3.0}, float six = {6.0}> { a = Add(x, three) c = Clip <min=0.0, max=6.0> (a) p = Mul(x, c) y = Div(p, six) }", 10);
  const Model result = after(before, "fuse_hardswish");
  EXPECT_EQ(ops(result), "HardSwish");
  EXPECT_EQ(result.graph->opset(), 14);
  EXPECT_LE(difference(before, result), kRounding);
}

TEST(FuseHardSwish, LeavesWhatOnlyLooksLikeIt) {
  expect_rewritten("fuse_hardswish",
                   {{"another slope", graph("h = HardSigmoid <alpha=0.2, beta=0.5> (x) y = Mul(x, h)"), "HardSigmoid Mul"},
                    {"another limit", graph("a = Add(x, three) c = Clip(a, zero, three) h = Div(c, six) y = Mul(x, h)"), "Add Clip Div Mul"},
                    {"another shift", graph("a = Add(x, two) c = Clip(a, zero, six0) h = Div(c, six) y = Mul(x, h)"), "Add Clip Div Mul"},
                    {"another factor", graph(kGate + "p = Mul(u, c) y = Div(p, six)"), "Add Clip Mul Div"},
                    {"a clip that others read", graph(kGate + "h = Div(c, six) p = Mul(x, h) y = Add(p, c)"), "Add Clip Div Mul Add"}},
                   0);
}

TEST(FuseHardSwish, KeepsConstantsThatWidenTheResult) {
  const Model before = graph_of("g (float[3] x) => (float[1,1,3] y) <float three = {3.0}, float zero = {0.0}, float six0 = {6.0}, float[1,1,1] six = {6.0}> { a = Add(x, three) c = Clip(a, zero, six0) p = Mul(x, c) y = Div(p, six) }");
  EXPECT_EQ(ops(after(before, "fuse_hardswish")), "Add Clip Mul Div");
}

}  // namespace
}  // namespace infopt
