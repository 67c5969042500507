#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

/// Relu, what is under test, Neg: an interface on both sides, so that it may vanish.
std::string between(const std::string& nodes, const std::string& more = "") {
  return "g (float[N,2,3] x) => (float[N,2,3] y) <float zero = {0.0}, float one = {1.0}" + more + "> { a = Relu(x) " + nodes + " y = Neg(b) }";
}

TEST(RemoveIdentities, RemovesWhatGivesOutWhatItGets) {
  std::vector<Rewriting> cases;
  for (const std::string& nodes : std::vector<std::string>{
           "b = Identity(a)", "b = Dropout(a)", "b = Cast <to=1> (a)", "b = Transpose <perm=[0,1,2]> (a)", "b = Concat <axis=1> (a)", "b = Sum(a)", "b = Max(a)",
           "b = Add(a, zero)", "b = Add(zero, a)", "b = Sub(a, zero)", "b = Mul(one, a)", "b = Div(a, one)", "b = Pow(a, one)", "c = Neg(a) b = Neg(c)"})
    cases.push_back({nodes, between(nodes), "Relu Neg"});
  const std::string shapes = ", int64[3] own = {0, -1, 3}, int64[3] zeros = {0, 0, 0}, int64[6] pads = {0,0,0,0,0,0}, int64[3] ends = {9223372036854775807,9223372036854775807,9223372036854775807}, int64[2] axes = {1, -1}, bool no = {0}, float[2,3] ones = {1,1,1,1,1,1}";
  for (const std::string& nodes : std::vector<std::string>{"b = Reshape(a, own)", "b = Reshape(a, zeros)", "b = Pad(a, pads)", "b = Slice(a, zeros, ends)", "c = Unsqueeze(a, axes) b = Squeeze(c, axes)",
                                                           "b = Dropout(a, zero, no)", "b = Mul(a, ones)"})
    cases.push_back({nodes, between(nodes, shapes), "Relu Neg"});
  expect_rewritten("remove_identities", cases, 0);
}

TEST(RemoveIdentities, SeesStaticShapes) {
  expect_rewritten("remove_identities",
                   {{"Reshape", "g (float[2,3] x) => (float[2,3] y) <int64[2] s = {2, 3}> { a = Relu(x) b = Reshape(a, s) y = Neg(b) }", "Relu Neg"},
                    {"Flatten", "g (float[2,3] x) => (float[2,3] y) { a = Relu(x) b = Flatten(a) y = Neg(b) }", "Relu Neg"},
                    {"Expand", "g (float[2,3] x) => (float[2,3] y) <int64[2] s = {1, 3}> { a = Relu(x) b = Expand(a, s) y = Neg(b) }", "Relu Neg"},
                    {"Slice", "g (float[2,3] x) => (float[2,3] y) <int64[1] s = {0}, int64[1] e = {3}, int64[1] axis = {1}> { a = Relu(x) b = Slice(a, s, e, axis) y = Neg(b) }", "Relu Neg"}},
                   0);
}

TEST(RemoveIdentities, LeavesWhatChangesSomething) {
  expect_rewritten("remove_identities",
                   {{"a constant that widens", "g (float[3] x) => (float[1,3] y) <float[1,3] zeros = {0,0,0}> { a = Relu(x) b = Add(a, zeros) y = Neg(b) }", "Relu Add Neg"},
                     {"0 − x", "g (float[N] x) => (float[N] y) <float zero = {0.0}> { a = Relu(x) b = Sub(zero, a) y = Neg(b) }", "Relu Sub Neg"},
                    {"1 / x", "g (float[N] x) => (float[N] y) <float one = {1.0}> { a = Exp(x) b = Div(one, a) y = Neg(b) }", "Exp Div Neg"},
                    {"another type", "g (float[N] x) => (double[N] y) { a = Relu(x) b = Cast <to=11> (a) y = Neg(b) }", "Relu Cast Neg"},
                    {"other axes", "g (float[N,1] x) => (float[N,1] y) <int64[1] p = {0}, int64[1] q = {2}> { a = Relu(x) b = Unsqueeze(a, p) c = Squeeze(b, q) y = Neg(c) }", "Relu Unsqueeze Squeeze Neg"},
                    {"a Reshape with two open dimensions", "g (float[N,6,M] x) => (float[A,B,C] y) <int64[3] s = {-1, 6, 1}> { a = Relu(x) b = Reshape(a, s) y = Neg(b) }", "Relu Reshape Neg"},
                    {"a Slice with steps", "g (float[N,4] x) => (float[N,4] y) <int64[2] z = {0,0}, int64[2] e = {9223372036854775807,9223372036854775807}, int64[2] axes={0,1}, int64[2] steps = {1,2}> { a = Relu(x) b = Slice(a, z, e, axes, steps) y = Neg(b) }", "Relu Slice Neg"}},
                   0);
}

TEST(RemoveIdentities, LeavesConstantsThatMayWiden) {
  const Model model = graph_of("g (float[N] x) => (float[M] y) <float[3] zeros = {0,0,0}> { a = Relu(x) b = Add(a, zeros) y = Neg(b) }");
  EXPECT_EQ(ops(after(model, "remove_identities")), "Relu Add Neg");
}

TEST(RemoveIdentities, LeavesDropoutInTraining) {
  const Model model = graph_of("g (float[N] x) => (float[N] y) <float ratio = {0.5}, bool yes = {1}> { a = Relu(x) b = Dropout(a, ratio, yes) y = Neg(b) }");
  EXPECT_EQ(ops(after(model, "remove_identities")), "Relu Dropout Neg");
}

TEST(RemoveIdentities, KeepsTheModelsInterface) {
  const std::vector<Rewriting> cases{
      {"an input given out", "g (float[N] x) => (float[N] y) { y = Identity(x) }", "Identity"},
      {"another operator becomes an Identity", "g (float[N] x) => (float[N] y, float[N] z) <float one = {1.0}> { y = Mul(x, one) z = Relu(y) }", "Identity Relu"},
      {"one value under two names", "g (float[N] x) => (float[N] y, float[N] z) { y = Relu(x) z = Identity(y) }", "Relu Identity"},
      {"an output takes over the name", "g (float[N] x) => (float[N] y) { a = Relu(x) y = Identity(a) }", "Relu"}};
  expect_rewritten("remove_identities", cases, 0);
  for (const Rewriting& c : cases) {
    const Model before = graph_of(c.graph), result = after(before, "remove_identities");
    for (size_t i = 0; i < before.graph->outputs().size(); ++i) EXPECT_EQ(result.graph->value(result.graph->outputs()[i]).name, before.graph->value(before.graph->outputs()[i]).name);
  }
}

TEST(RemoveIdentities, WorksInBodiesToo) {
  expect_rewritten("remove_identities",
                   {{"If", "g (bool c, float[N] x) => (float[N] y) { i = Identity(x) y = If (c) <then_branch = t () => (float[N] p) { a = Identity(i) p = Neg(a) }, else_branch = e () => (float[N] q) { q = Identity(i) }> }", "If[Neg][Identity]"}}, 0);
}

/// A Loop of n steps whose body hands back `kept` as it got it.
std::string loop(const std::string& kept_out) {
  return "g (int64 n, float[2,2] x, float[2,2] wk) => (float[2,2] y, float[2,2] z, float[T,2,2] scanned) {"
         " go = Constant <value = bool {1}> () s, u, v = Loop(n, go, x, wk) <body = b (int64 i, bool c, float[2,2] a, float[2,2] kept)"
         " => (bool c2, float[2,2] a2, " + kept_out + ", float[2,2] each) { c2 = Identity(c) a2 = MatMul(a, kept) same = Identity(kept) other = Neg(kept) each = Add(a, kept) }>"
         " y = Relu(s) z = Relu(u) scanned = Identity(v) }";
}

TEST(RemoveIdentities, TakesStateThatALoopNeverChangesOutOfIt) {
  for (const std::string out : {"float[2,2] same", "float[2,2] kept"}) {
    const Model before = graph_of(loop(out)), result = after(before, "remove_identities");
    EXPECT_EQ(node_of(result, "Loop").inputs.size(), 3u);
    EXPECT_EQ(node_of(result, "Loop").outputs.size(), 2u);
    EXPECT_EQ(node_of(result, "Loop").bodies()[0]->inputs().size(), 3u);
    EXPECT_EQ(difference(before, result), 0);
  }
}

TEST(RemoveIdentities, LeavesStateThatALoopChanges) {
  const Model before = graph_of(loop("float[2,2] other")), result = after(before, "remove_identities");
  EXPECT_EQ(node_of(result, "Loop").inputs.size(), 4u);
  EXPECT_EQ(difference(before, result), 0);
}

TEST(RemoveIdentities, TakesStateThatAScanNeverChangesOutOfIt) {
  const Model before = graph_of(
      "g (float[4,2] x, float[2] s0, float[2,2] wk) => (float[2] y, float[2,2] k, float[4,2] z) { y, k, z = Scan <num_scan_inputs = 1, body = b (float[2] s, float[2,2] kept, float[2] e)"
      " => (float[2] s2, float[2,2] same, float[2] out) { m = MatMul(s, kept) s2 = Add(m, e) same = Identity(kept) out = Tanh(s2) }> (s0, wk, x) }");
  const Model result = after(before, "remove_identities");
  EXPECT_EQ(node_of(result, "Scan").inputs.size(), 2u);
  EXPECT_EQ(difference(before, result), 0);
}

}  // namespace
}  // namespace infopt
