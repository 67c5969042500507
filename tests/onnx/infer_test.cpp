// What exports declare wrongly. Expected types: ONNX's definition of the operators.
#include "lib/onnx/infer.h"

#include <gtest/gtest.h>

#include "lib/ir/edit.h"
#include "lib/ir/type_text.h"
#include "tests/support/model_text.h"

namespace infopt::test {
namespace {

std::string type_of_output(const Model& model) { return to_string(model.graph->value(model.graph->outputs()[0]).type); }

TEST(CorrectDeclaredTypes, GivesAnOutputTheShapeThatItsOperatorsMake) {
  Model model = model_of("g (float[2,3] x) => (float[1,length] y) <int64[3] s = {1, 2, 3}> { y = Reshape(x, s) }", 17);
  const auto corrected = correct_declared_types(model);
  ASSERT_EQ(corrected.size(), 1u);
  EXPECT_EQ(corrected[0], "output 'y' was declared as float32[1,length], and its operators make float32[1,2,3]: so the written file says");
  EXPECT_EQ(type_of_output(model), "float32[1,2,3]");
}

TEST(CorrectDeclaredTypes, KeepsWhatNothingContradicts) {
  Model model = model_of("g (float[n,3] x) => (float[rows,3] y) { y = Relu(x) }", 17);
  EXPECT_TRUE(correct_declared_types(model).empty());
  EXPECT_EQ(type_of_output(model), "float32[rows,3]");
}

TEST(CorrectDeclaredTypes, CorrectsWhatBodiesDeclareToo) {
  Model model = model_of(R"(g (bool c, float x) => (float[1] y) <float[1] one = {1}> {
    y = If(c) <then_branch = t () => (float a) { a = Add(x, one) }, else_branch = e () => (float[1] b) { b = Sub(x, one) }> })", 17);
  EXPECT_TRUE(correct_declared_types(model).empty());
  const Graph& then_branch = *model.graph->node(model.graph->order()[0]).bodies()[0];
  EXPECT_EQ(to_string(then_branch.value(then_branch.outputs()[0]).type), "float32[1]");
}

TEST(CorrectDeclaredTypes, ForgetsWhatFollowedFromAWrongDeclaration) {
  // The branches' ranks differ, so that nothing is known of r; its declared rank came from the wrong one of b.
  Model model = model_of(R"(g (bool c, float x) => (float y) <float[1] one = {1}> {
    r = If(c) <then_branch = t () => (float a) { a = Neg(x) }, else_branch = e () => (float b) { b = Sub(x, one) }>
    y = Neg(r) })", 17);
  Graph& graph = *model.graph;
  const ValueId r = graph.node(graph.order()[0]).outputs[0];
  GraphEdit(graph).set_type(r, Type::tensor(DType::F32, Shape{}));
  correct_declared_types(model);
  EXPECT_FALSE(graph.value(r).type.has_shape);
  EXPECT_EQ(type_of_output(model), "float32[]");
}

TEST(InferTypesAfresh, KeepsAnOutputsDeclaredShapeWhereNoneIsFound) {
  Model model = model_of("g (float[n,3] x, int64[rank] s) => (float[a,b] y) { y = Reshape(x, s) }", 17);
  infer_types(model, true);
  EXPECT_EQ(type_of_output(model), "float32[a,b]");
}

}  // namespace
}  // namespace infopt::test
