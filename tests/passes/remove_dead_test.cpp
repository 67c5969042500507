#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

TEST(RemoveDead, RemovesWhatNoOutputNeeds) {
  const Model before = graph_of("g (float[N] x, float[N] unused) => (float[N] y) <float c = {1.0}, float d = {2.0}> { y = Relu(x) a = Add(x, c) b = Mul(a, c) }");
  const Model result = after(before, "remove_dead");
  EXPECT_EQ(ops(result), "Relu");
  EXPECT_EQ(result.graph->inputs().size(), 2u);  // the interface stays
  EXPECT_EQ(result.graph->find_value("c"), kNone);
  EXPECT_EQ(result.graph->find_value("d"), kNone);
  EXPECT_EQ(difference(before, result), 0);
}

TEST(RemoveDead, KeepsNodesOfWhichOneOutputIsRead) {
  expect_rewritten("remove_dead", {{"Split", "g (float[N,4] x) => (float[N,2] y) { a, b = Split <axis=1> (x) y = Relu(b) }", "Split Relu"}}, 0);
}

TEST(RemoveDead, FollowsBodies) {
  const Model before = graph_of(
      "g (bool c, float[N] x) => (float[N] y) <float two = {2.0}> { used = Neg(x) only_for_dead = Abs(x) y = If (c) <"
      "then_branch = t () => (float[N] p) { p = Mul(used, two) d = Exp(only_for_dead) }, else_branch = e () => (float[N] q) { q = Relu(x) }> }");
  const Model result = after(before, "remove_dead");
  EXPECT_EQ(ops(result), "Neg If[Mul][Relu]");
  EXPECT_EQ(difference(before, result), 0);
}

TEST(ShareConstants, MakesEqualOnesOne) {
  const Model before = graph_of("g (float[N,2] x) => (float[N,2] y) <float[2] a = {1.0, 2.0}, float[2] b = {1.0, 2.0}, float[2] other = {1.0, 3.0}, float[1,2] shaped = {1.0, 2.0}> "
                                "{ p = Add(x, a) q = Add(p, b) r = Add(q, other) y = Add(r, shaped) }");
  const Model result = after(before, "share_constants");
  std::set<ValueId> constants;
  for (NodeId id : result.graph->order()) constants.insert(result.graph->node(id).input(1));
  EXPECT_EQ(constants.size(), 3u);
  EXPECT_EQ(difference(before, result), 0);
}

TEST(ShareConstants, TellsLongOnesApartThatBeginAlike) {
  const Model before = [] {
    Model m = graph_of("g (float[N,2000] x, float[2000] w) => (float[N,2000] y) { p = Add(x, w) y = Mul(p, w) }");
    GraphEdit edit(*m.graph);
    const Node& mul = node_of(m, "Mul");
    Tensor other = m.graph->constant(mul.input(1))->clone();
    other.mutable_data<float>()[1999] += 1;
    edit.set_input(mul.id, 1, edit.add_constant(other, "other"));
    return m;
  }();
  const Model result = after(before, "share_constants");
  EXPECT_NE(node_of(result, "Add").input(1), node_of(result, "Mul").input(1));
  EXPECT_EQ(difference(before, result), 0);
}

TEST(ShareConstants, MovesWhatSeveralBodiesHaveAroundThem) {
  const std::string inner = "If (d) <then_branch = t2 () => (float[N,32] p) { p = MatMul(x, w) }, else_branch = e2 () => (float[N,32] q) { r = MatMul(x, w) q = Relu(r) }>";
  Model before = graph_of("g (bool c, bool d, float[N,32] x, float[32,32] w) => (float[N,32] y) { y = If (c) <then_branch = t () => (float[N,32] a) { a = " + inner + " }, else_branch = e () => (float[N,32] b) { m = MatMul(x, w) b = Neg(m) }> }");
  // Each body gets a copy of its own, as folding in bodies leaves them.
  const auto copies = [](auto&& self, Graph& g, const Tensor& w) -> void {
    GraphEdit edit(g);
    for (NodeId id : g.order()) {
      for (const auto& body : g.node(id).bodies()) self(self, *body, w);
      if (g.node(id).is("MatMul")) edit.set_input(id, 1, edit.add_constant(w.clone()));
    }
  };
  copies(copies, *before.graph, before.graph->value(before.graph->find_value("w")).constant);
  before = after(before, "remove_dead");
  ASSERT_GT(serialize_model(before).size(), 3u * 4096);
  const Model result = after(before, "share_constants");
  EXPECT_EQ(ops(result), ops(before));
  EXPECT_LT(serialize_model(result).size(), 4096u + 2048u);
  EXPECT_EQ(difference(before, result), 0);
}

TEST(ShareConstants, LeavesDefaultsOfInputs) {
  const Model before = graph_of("g (float[N] x, float d = {2.0}) => (float[N] y) <float c = {2.0}> { p = Add(x, c) y = Mul(p, d) }");
  EXPECT_NE(node_of(after(before, "share_constants"), "Add").input(1), node_of(after(before, "share_constants"), "Mul").input(1));
}

}  // namespace
}  // namespace infopt
