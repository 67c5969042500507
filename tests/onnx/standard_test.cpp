// What ONNX's own code does for infopt: inference, function bodies, the checker.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/ir/edit.h"
#include "lib/onnx/check.h"
#include "lib/onnx/export.h"
#include "lib/onnx/function_body.h"
#include "lib/onnx/infer.h"
#include "tests/support/model_text.h"

namespace infopt {
namespace {

using test::model_of;
using testing::ElementsAre;

std::vector<std::string> ops_of(const Graph& graph) {
  std::vector<std::string> ops;
  for (NodeId id : graph.order()) ops.push_back(graph.node(id).op);
  return ops;
}

TEST(Infer, FollowsShapesThroughShapeArithmetic) {
  Model m = model_of(R"(g (float[2, 3, 4] x) => (float[a, b] y) <int64[1] minus = {-1}, int64[1] zero = {0}> {
    s = Shape(x)
    first = Gather(s, zero)
    to = Concat <axis = 0> (first, minus)
    y = Reshape(x, to)
  })");
  infer_types(m);
  EXPECT_EQ(m.graph->value(m.graph->outputs()[0]).type.fixed_shape(), (Shape{2, 12}));
}

TEST(Infer, ReachesIntoBodies) {
  Model m = model_of(R"(g (float[2, 3] x, bool c) => (float[a, b] y) {
    y = If (c) <then_branch = th () => (float p) { u = Transpose(x) p = Relu(u) }, else_branch = el () => (float q) { q = Transpose(x) }>
  })");
  infer_types(m);
  const auto body = m.graph->node(m.graph->order()[0]).bodies()[0];
  EXPECT_EQ(body->value(body->find_value("u")).type.fixed_shape(), (Shape{3, 2}));
}

TEST(Infer, AfreshForgetsWhatIsNoLongerTrue) {
  Model m = model_of("g (float[2] x) => (float[2] y) { t = Relu(x) y = Neg(t) }");
  infer_types(m);
  GraphEdit edit(*m.graph);
  edit.set_type(m.graph->find_value("t"), Type::tensor(DType::F16, {5}));
  edit.finish();
  infer_types(m, true);
  const Type& t = m.graph->value(m.graph->find_value("t")).type;
  EXPECT_EQ(t.dtype, DType::F32);
  EXPECT_EQ(t.fixed_shape(), (Shape{2}));
}

TEST(Infer, AContradictionInTheModelDoesNotStopTheRest) {
  Model m = model_of("g (float[2] x) => (float[7] y, float[a] z) { y = Relu(x) z = Neg(x) }");
  infer_types(m);
  EXPECT_EQ(m.graph->value(m.graph->find_value("z")).type.fixed_shape(), (Shape{2}));
}

TEST(FunctionBody, HasTheCallsAttributesAndInputs) {
  const Model m = model_of("g (float[2] x) => (float[2] y) { y = HardSwish(x) }");
  const auto body = expand_function(*m.graph, m.graph->order()[0]);
  ASSERT_TRUE(body);
  EXPECT_THAT(ops_of(*body), ElementsAre("HardSigmoid", "Mul"));
  EXPECT_FLOAT_EQ(body->node(body->order()[0]).f("alpha", 0), 1.0f / 6.0f);
  EXPECT_EQ(body->inputs().size(), 1u);
  EXPECT_EQ(body->outputs().size(), 1u);
}

TEST(FunctionBody, DependsOnWhatTheCallGives) {
  const Model m =
      model_of("g (float[2, 3] x, float[3] s) => (float[2, 3] y, float[2, 3] z) { y = LayerNormalization <axis = -1> (x, s) z = Clip(x) }");
  const auto norm = expand_function(*m.graph, m.graph->order()[0]);
  ASSERT_TRUE(norm);
  EXPECT_EQ(norm->inputs().size(), 2u);
  EXPECT_THAT(ops_of(*norm), testing::Contains("ReduceMean"));
  EXPECT_THAT(ops_of(*expand_function(*m.graph, m.graph->order()[1])), ElementsAre("Identity"));
}

TEST(FunctionBody, IsNullForPrimitives) {
  const Model m = model_of("g (float[2] x) => (float[2] y) { y = Add(x, x) }");
  EXPECT_EQ(expand_function(*m.graph, m.graph->order()[0]), nullptr);
}

TEST(Check, AcceptsAGoodModelAndTellsOfABadOne) {
  test::TempDir dir;
  write_model(model_of("g (float[2] x) => (float[2] y) { y = Relu(x) }"), dir / "good.onnx");
  EXPECT_NO_THROW(check_model_file(dir / "good.onnx"));
  write_model(model_of("g (float[2] x) => (float[2] y) { y = Relu <slope = 2> (x) }"), dir / "bad.onnx");
  try {
    check_model_file(dir / "bad.onnx", ErrorKind::Defect);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Defect);
    EXPECT_THAT(e.what(), testing::HasSubstr("slope"));
  }
}

}  // namespace
}  // namespace infopt
