#include <gmock/gmock.h>

#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

const std::string kIn = "a = Transpose <perm=[0,2,3,1]> (x) ", kOut = "y = Transpose <perm=[0,3,1,2]> (b) ";
std::string nhwc(const std::string& between, const std::string& inputs = "", const std::string& constants = "") {
  return "g (float[N,3,4,5] x" + inputs + ") => (float[N,3,4,5] y) " + (constants.empty() ? "" : "<" + constants + "> ") + "{ " + kIn + between + " " + kOut + "}";
}

TEST(CancelTransposes, MergesNeighbours) {
  expect_rewritten("cancel_transposes",
                   {{"into one", "g (float[N,3,4] x) => (float[A,B,C] y) { r = Relu(x) a = Transpose <perm=[2,0,1]> (r) y = Transpose <perm=[1,0,2]> (a) }", "Relu Transpose"},
                    {"into none", "g (float[N,3,4] x) => (float[A,B,C] y) { r = Relu(x) a = Transpose <perm=[2,0,1]> (r) y = Transpose <perm=[1,2,0]> (a) }", "Relu"},
                    {"three", "g (float[N,3,4] x) => (float[A,B,C] y) { r = Relu(x) a = Transpose <perm=[2,0,1]> (r) b = Transpose <perm=[2,0,1]> (a) y = Transpose <perm=[2,0,1]> (b) }", "Relu"},
                    {"reversed without perm", "g (float[N,3,4] x) => (float[A,B,C] y) { r = Relu(x) a = Transpose(r) y = Transpose(a) }", "Relu"},
                    {"between the model's input and output", "g (float[N,3] x) => (float[N,3] y) { a = Transpose(x) y = Transpose(a) }", "Identity"},
                    {"where the first is read by others", "g (float[N,3,4] x) => (float[A,B,C] y, float[D,E,F] z) { a = Transpose <perm=[2,0,1]> (x) b = Transpose <perm=[1,2,0]> (a) y = Relu(b) z = Neg(a) }", "Transpose Relu Neg"}},
                   0);
}

TEST(CancelTransposes, ReachesThroughElementwiseOperators) {
  expect_rewritten("cancel_transposes",
                   {{"one of one input", nhwc("b = Relu(a)"), "Relu"},
                    {"bounds", nhwc("b = Clip(a, low, high)", "", "float low = {-0.5}, float[1] high0 = {1.0}, float high = {0.5}"), "Clip"},
                    {"a bias along the last axis", nhwc("b = Add(a, w)", ", float[3] w"), "Add"},
                    {"a constant of all axes, first", nhwc("b = Sub(w, a)", ", float[1,4,5,3] w"), "Sub"},
                    {"one number", nhwc("b = Mul(a, w)", ", float w"), "Mul"},
                    {"a chain", nhwc("c = Add(a, w) d = Sigmoid(c) b = Mul(c, d)", ", float[3] w"), "Add Sigmoid Mul"},
                    {"two transposed inputs", nhwc("u1 = Transpose <perm=[0,2,3,1]> (u) b = Add(a, u1)", ", float[N,3,4,5] u"), "Add"},
                    {"Concat along the channels", "g (float[N,3,4,5] x, float[N,2,4,5] u) => (float[N,5,4,5] y) { " + kIn + "u1 = Transpose <perm=[0,2,3,1]> (u) b = Concat <axis=-1> (a, u1) " + kOut + "}", "Concat"},
                    {"Softmax", nhwc("b = Softmax <axis=-1> (a)"), "Softmax"},
                    {"an upward branch", nhwc("u1 = Transpose <perm=[0,2,3,1]> (u) u2 = Relu(u1) b = Add(a, u2)", ", float[N,3,4,5] u"), "Relu Add"}},
                   kRounding);
}

TEST(CancelTransposes, PaysForWhatElseReadsTheRegionOnlyWhereItGains) {
  expect_rewritten("cancel_transposes",
                   {{"another reader: nothing gained", "g (float[N,3,4,5] x) => (float[N,3,4,5] y, float[N,A] z) { " + kIn + "b = Relu(a) z = Flatten(b) " + kOut + "}", "Relu Transpose Flatten"},
                    {"an untransposed input: one fewer", nhwc("b = Add(a, u)", ", float[N,4,5,3] u"), "Transpose Add"},
                    {"no way out", "g (float[N,3,4,5] x) => (float[N,A] z) { " + kIn + "b = Relu(a) z = Flatten(b) }", "Transpose Relu Flatten"},
                    {"an operator that minds", nhwc("b = CumSum(a, axis)", "", "int64 axis = {1}"), "Transpose CumSum Transpose"},
                    {"an input of fewer axes", nhwc("b = Add(a, u)", ", float[3] u"), "Transpose Add Transpose"},
                    {"other permutations", "g (float[N,4,4,4] x) => (float[A,B,C,D] y) { " + kIn + "b = Relu(a) y = Transpose <perm=[0,2,3,1]> (b) }", "Transpose Relu Transpose"}},
                   0);
}

TEST(CancelTransposes, KeepsOutputsOfTheRegionInTheirOrder) {
  const Model before = graph_of("g (float[N,3,4,5] x, float[N,3,4,5] u) => (float[N,3,4,5] y, float[N,4,5,3] b, float[N,3,4,5] z) { " + kIn + "u1 = Transpose <perm=[0,2,3,1]> (u) b = Add(a, u1) c = Neg(b) " + kOut + " z = Transpose <perm=[0,3,1,2]> (c) }");
  const Model result = after(before, "cancel_transposes");
  EXPECT_EQ(std::count_if(result.graph->order().begin(), result.graph->order().end(), [&](NodeId n) { return result.graph->node(n).op == "Transpose"; }), 1);
  EXPECT_EQ(difference(before, result), 0);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(result.graph->value(result.graph->outputs()[i]).name, before.graph->value(before.graph->outputs()[i]).name);
}

}  // namespace
}  // namespace infopt
