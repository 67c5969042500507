#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

/// Every node and value, of bodies too, with documentation and metadata.
void annotate(Graph& graph) {
  GraphEdit edit(graph);
  graph.metadata = {{"traced", "graph"}};
  for (NodeId id : graph.order()) {
    edit.node_for_import(id).doc = "File \"model.py\", line 1";
    edit.node_for_import(id).metadata = {{"stack_trace", "File \"model.py\", line 1"}};
    for (const auto& body : graph.node(id).bodies()) annotate(*body);
  }
  for (size_t i = 0; i < graph.value_capacity(); ++i)
    if (const auto v = static_cast<ValueId>(i); graph.value_alive(v)) edit.value_for_import(v).doc = "a value", edit.value_for_import(v).metadata = {{"scope", "layer.0"}};
}

Model annotated() {
  Model m = graph_of("g (bool c, float[N] x) => (float[N] y) <float two = {2.0}> { a = Neg(x) b = If (c) <then_branch = t () => (float[N] p) { p = Mul(a, two) }, else_branch = e () => (float[N] q) { q = Relu(a) }> y = Abs(b) }");
  annotate(*m.graph);
  m.doc = "A model.";
  m.metadata = {{"classes", "cat,dog"}};
  return m;
}

TEST(RemoveDebugInfo, LeavesNoneOnNodesConstantsAndInnerValues) {
  const Model before = annotated(), result = after(before, "remove_debug_info");
  const std::string bytes = serialize_model(result);
  EXPECT_NE(serialize_model(before).find("stack_trace"), std::string::npos);
  EXPECT_EQ(bytes.find("stack_trace"), std::string::npos);
  EXPECT_EQ(bytes.find("model.py"), std::string::npos);
  EXPECT_EQ(bytes.find("traced"), std::string::npos);
  EXPECT_TRUE(result.graph->value(result.graph->find_value("two")).metadata.empty());
  EXPECT_EQ(ops(result), ops(before));
  EXPECT_EQ(difference(before, result), 0);
}

TEST(RemoveDebugInfo, LeavesTheModelsOwnAndItsInterfaces) {
  const Model result = after(annotated(), "remove_debug_info");
  EXPECT_EQ(result.doc, "A model.");
  ASSERT_EQ(result.metadata.size(), 1u);
  EXPECT_EQ(result.metadata[0].second, "cat,dog");
  for (const char* name : {"x", "y"}) {
    const Value& v = result.graph->value(result.graph->find_value(name));
    EXPECT_EQ(v.doc, "a value");
    EXPECT_EQ(v.metadata.size(), 1u);
  }
}

}  // namespace
}  // namespace infopt
