#include "passes/support/flops.h"

#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

TEST(Costs, CountWhatBodiesReadOfTheGraphAroundThemOnce) {
  const Model inside = graph_of("g (bool c, float[2,8] x) => (float[2,8] y) { y = If (c) <then_branch = t () => (float[2,8] p) <float[8] b = {1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0}> { p = Add(x, b) }, else_branch = e () => (float[2,8] q) { q = Relu(x) }> }");
  const Model around =
      graph_of("g (bool c, float[2,8] x, float[8,8] w) => (float[2,8] y) { y = If (c) <then_branch = t () => (float[2,8] p) { p = MatMul(x, w) }, else_branch = e () => (float[2,8] q) { r = MatMul(x, w) q = Relu(r) }> }");
  EXPECT_EQ(count_costs(*inside.graph, declared_shapes(*inside.graph)).parameters, 8);
  EXPECT_EQ(count_costs(*around.graph, declared_shapes(*around.graph)).parameters, 64);
}

}  // namespace
}  // namespace infopt
