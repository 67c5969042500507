#include <gmock/gmock.h>

#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;
using testing::ElementsAre;

TEST(FoldConstants, ComputesWhatDependsOnConstantsOnly) {
  expect_rewritten("fold_constants",
                   {{"a chain", "g (float[N,2] x) => (float[N,2] y) <float[2] a = {1.0, 2.0}, float[2] b = {3.0, 4.0}> { c = Add(a, b) d = Mul(c, c) y = Add(x, d) }", "Add"},
                    {"Constant nodes", "g (float[N] x) => (float[N] y) { c = Constant <value_float = 2.0> () d = Constant <value = float[1] {3.0}> () e = Mul(c, d) y = Mul(x, e) }", "Mul"},
                    {"several outputs", "g (float[N,2] x) => (float[N,2] y) <float[4] c = {1.0,2.0,3.0,4.0}> { a, b = Split(c) p = Add(x, a) y = Mul(p, b) }", "Add Mul"},
                    {"as an EfficientNet computes its pads",
                     "g (float[N,3,6,6] x, float[4,3,3,3] w) => (float[N,4,3,3] y) <int64[4] p = {0,1,0,1}, int64[1] n = {4}, int64[2] two = {-1,2}, int64[1] s = {-1}, int64[1] e = {-9223372036854775807}, int64[1] zero = {0}, int64[1] step = {-1}, int64[1] flat = {-1}, float v = {0.0}> "
                     "{ z = ConstantOfShape <value = int64[1] {0}> (n) c = Concat <axis=0> (p, z) r = Reshape(c, two) l = Slice(r, s, e, zero, step) t = Transpose <perm=[1,0]> (l) f = Reshape(t, flat) g2 = Cast <to=7> (f) q = Pad(x, g2, v) y = Conv <strides=[2,2]> (q, w) }",
                     "Pad Conv"}},
                   0);
}

TEST(FoldConstants, LeavesTheModelsOutputs) {
  expect_rewritten("fold_constants", {{"a constant output", "g (float[N] x) => (float[2] y, float[N] z) <float[2] a = {1.0, 2.0}> { b = Neg(a) y = Neg(b) z = Relu(x) }", "Neg Relu"}}, 0);
}

TEST(FoldConstants, LeavesRandomNumbersAndUnknownOperators) {
  EXPECT_EQ(ops(after(graph_of("g (float[2] x) => (float[2] y) { r = RandomNormal <shape=[2]> () y = Add(x, r) }"), "fold_constants")), "RandomNormal Add");
  const Model foreign = parse_model(proto_of("<ir_version: 8, opset_import: [\"\": 17, \"acme\": 1]> g (float[2] x) => (float[2] y) <float[2] c = {1.0, 2.0}> { r = acme.Magic(c) y = Add(x, r) }").SerializeAsString());
  EXPECT_EQ(ops(after(foreign, "fold_constants")), "Magic Add");
}

TEST(FoldConstants, LeavesWhatFails) {  // 3 elements don't fit [2, 2]: the engine's to tell
  const Model model = graph_of("g (float[2,2] x) => (float[2,2] y) <float[3] c = {1.0, 2.0, 3.0}, int64[2] s = {2, 2}> { r = Reshape(c, s) y = Add(x, r) }");
  EXPECT_EQ(ops(after(model, "fold_constants")), "Reshape Add");
}

TEST(FoldConstants, MakesNothingLargerThanItsLimit) {
  const std::string text = "g (float[N,64,64] x, float[64,1] w) => (float[N,64,64] y) <int64[2] s = {64, 64}> { e = Expand(w, s) y = Add(x, e) }";
  EXPECT_EQ(ops(after(graph_of(text), "fold_constants", {{"max_bytes", int64_t{16384}}})), "Add");
  EXPECT_EQ(ops(after(graph_of(text), "fold_constants", {{"max_bytes", int64_t{16383}}})), "Expand Add");
  // What replaces a larger constant may be as large as that.
  const std::string moved = "g (float[N,64] x, float[64,64] w) => (float[N,64] y) { t = Transpose(w) y = MatMul(x, t) }";
  EXPECT_EQ(ops(after(graph_of(moved), "fold_constants", {{"max_bytes", int64_t{0}}})), "MatMul");
  const std::string shared = "g (float[N,64] x, float[64,64] w) => (float[N,64] y) { t = Transpose(w) p = MatMul(x, t) y = MatMul(p, w) }";
  EXPECT_EQ(ops(after(graph_of(shared), "fold_constants", {{"max_bytes", int64_t{0}}})), "Transpose MatMul MatMul");
}

TEST(FoldConstants, MakesTheFileLargerByItsShareOnly) {
  // An embedding of 117 KiB that the head reads transposed stays one constant, one of 64 KiB doesn't.
  const std::string tied = "g (int64[N] i, float[300,100] w) => (float[N,300] y) { e = Gather(w, i) t = Transpose(w) y = MatMul(e, t) }";
  EXPECT_EQ(ops(after(graph_of(tied), "fold_constants")), "Gather Transpose MatMul");
  EXPECT_EQ(ops(after(graph_of(tied), "fold_constants", {{"max_growth", 1.0}})), "Gather MatMul");
  const std::string small = "g (int64[N] i, float[160,100] w) => (float[N,160] y) { e = Gather(w, i) t = Transpose(w) y = MatMul(e, t) }";
  EXPECT_EQ(ops(after(graph_of(small), "fold_constants")), "Gather MatMul");
}

TEST(FoldConstants, PutsWeightsTogetherFromSlices) {
  // As PyTorch's exporter orders the gates of an LSTM: each slice is taken of a weight that the others still read.
  const std::string gates =
      "g (float[N,256] x, float[256,256] w) => (float[N,256] y) <int64[1] a = {0}, int64[1] b = {64}, int64[1] c = {128}, int64[1] d = {256}, int64[1] axis = {1}> "
      "{ p = Slice(w, a, b, axis) q = Slice(w, b, c, axis) r = Slice(w, c, d, axis) o = Concat <axis = 1> (p, r, q) y = MatMul(x, o) }";
  EXPECT_EQ(ops(after(graph_of(gates), "fold_constants")), "MatMul");
}

TEST(FoldConstants, NeverDecodesWeights) {
  const std::string quantized = "g (float[N,4] x) => (float[N,2] y) <int8[4,2] q = {1,2,3,4,5,6,7,8}, float s = {0.5}> ";
  expect_rewritten("fold_constants",
                   {{"DequantizeLinear", quantized + "{ d = DequantizeLinear(q, s) y = MatMul(x, d) }", "DequantizeLinear MatMul"},
                    {"storage form", quantized + "{ c = Cast <to=1> (q) d = Mul(c, s) y = MatMul(x, d) }", "Cast Mul MatMul"},
                    {"large float16 weights", "g (float[N,64] x, float16[64,64] w) => (float[N,64] y) { d = Cast <to=1> (w) y = MatMul(x, d) }", "Cast MatMul"},
                    {"their transposition", "g (float[N,64] x, float16[32,64] w) => (float[N,32] y) { d = Cast <to=1> (w) t = Transpose(d) y = MatMul(x, t) }", "Cast MatMul"},
                    {"small ones", "g (float[N,64] x, float16[64] w) => (float[N,64] y) { d = Cast <to=1> (w) y = Mul(x, d) }", "Mul"}},
                   0);
  const Model half = graph_of("g (float[N,64] x, float16[64,64] w) => (float[N,64] y) { d = Cast <to=1> (w) y = MatMul(x, d) }");
  EXPECT_EQ(ops(after(half, "fold_constants", {{"half_weights", std::string("decode")}, {"max_bytes", int64_t{0}}})), "MatMul");
}

TEST(FoldConstants, TakesKnownDimensionsForNumbers) {
  expect_rewritten("fold_constants",
                   {{"all known", "g (float[2,3] x) => (float[3,2] y) <int64[2] flip = {1, 0}> { s = Shape(x) t = Gather(s, flip) y = Reshape(x, t) }", "Reshape"},
                    {"one of them", "g (float[N,3] x) => (float[N,3] y) <int64 one = {1}> { s = Shape(x) n = Gather(s, one) f = Cast <to=1> (n) y = Div(x, f) }", "Div"},
                    {"a part of them", "g (float[N,3] x) => (float[N,3] y) { s = Shape <start=1> (x) f = Cast <to=1> (s) y = Div(x, f) }", "Div"},
                    {"Size", "g (float[2,3] x) => (float[2,3] y) { s = Size(x) f = Cast <to=1> (s) y = Div(x, f) }", "Div"},
                    {"behind operators", "g (float[N,3,6,6] x, float[4,3,3,3] w) => (float[N,4,4,4] y) <int64[1] two = {2}, int64[1] four = {4}> { c = Conv (x, w) s = Shape(c) t = Slice(s, two, four) f = Cast <to=1> (t) r = ReduceProd <keepdims=0> (f) y = Div(c, r) }", "Conv Div"},
                    {"not the open one", "g (float[N,3] x) => (float[N,3] y) <int64 zero = {0}> { s = Shape(x) n = Gather(s, zero) f = Cast <to=1> (n) y = Div(x, f) }", "Shape Gather Cast Div"}},
                   0);
}

TEST(FoldConstants, DoesNotBelieveDeclaredShapesOfWhatNodesMake) {
  const Model model = [] {
    Model m = model_of("g (float[N,3] x) => (float[M] y) { a = Relu(x) s = Size(a) f = Cast <to=1> (s) y = Div(a, f) }");
    GraphEdit(*m.graph).set_type(m.graph->find_value("a"), Type::tensor(DType::F32, {7, 3}));
    return m;
  }();
  EXPECT_EQ(ops(after(model, "fold_constants")), "Relu Size Cast Div");
}

TEST(FoldConstants, FixesReshapesOfDynamicBatches) {
  const std::string begin = "g (float[N,6,8] x) => (float[A,B,C,D] y) <int64 i0 = {0}, int64 i1 = {1}, int64[1] axis = {0}, int64[1] two = {2}, int64[1] four = {4}, int64[1] open = {-1}> { s = Shape(x) n = Gather(s, i0) un = Unsqueeze(n, axis) ";
  const std::string second = "m = Gather(s, i1) um = Unsqueeze(m, axis) ";
  expect_rewritten("fold_constants",
                   {{"heads", begin + second + "t = Concat <axis=0> (un, um, two, four) y = Reshape(x, t) }", "Reshape"},
                    {"a batch elsewhere", begin + second + "t = Concat <axis=0> (two, four, um, un) y = Reshape(x, t) }", "Reshape"},
                    {"-1 and the batch in its place", begin + "t = Concat <axis=0> (un, open, two, four) y = Reshape(x, t) }", "Reshape"},
                    {"-1 and the batch elsewhere", begin + "t = Concat <axis=0> (open, two, un, four) y = Reshape(x, t) }", "Shape Gather Unsqueeze Concat Reshape"}},
                   0);
  const Model model = after(graph_of(begin + "t = Concat <axis=0> (un, open, two, four) y = Reshape(x, t) }"), "fold_constants");
  EXPECT_THAT(to_vector<int64_t>(constant_of(model, "Reshape", 1)), ElementsAre(0, -1, 2, 4));
}

TEST(FoldConstants, LetsProductsTellTheLastDimension) {  // N of u might be another one than N of x, were its name no identifier
  const Model before = graph_of("g (float[\"?\",6,8] x, float[\"?\",6,8] u, float[8,4] w) => (float[A,B,C] y) <int64 i0 = {0}, int64[1] axis = {0}, int64[1] six = {6}, int64[1] open = {-1}> "
                                "{ s = Shape(x) n = Gather(s, i0) un = Unsqueeze(n, axis) t = Concat <axis=0> (un, six, open) r = Reshape(u, t) y = MatMul(r, w) }");
  const Model result = after(before, "fold_constants");
  EXPECT_EQ(ops(result), "Reshape MatMul");
  EXPECT_EQ(difference(before, result), 0);
}

TEST(FoldConstants, DropsExpandsToTheOwnShape) {
  expect_rewritten("fold_constants",
                   {{"its own shape, as torch writes it",
                     "g (float[N,6] x) => (float[N,6] y) <int64[1] one = {1}, int64[1] minus = {-1}, int64[1] count = {2}, int64 i0 = {0}, int64[1] axis = {0}> "
                     "{ a = Relu(x) s = Shape(a) n = Gather(s, i0) un = Unsqueeze(n, axis) t = Concat <axis=0> (un, minus) o = ConstantOfShape <value = int64[1] {1}> (count) m = Mul(o, minus) e = Equal(t, m) w2 = Where(e, o, t) b = Expand(a, w2) y = Neg(b) }",
                     "Relu Neg"},
                    {"another's", "g (float[1,6] x, float[N,6] u) => (float[N,6] y) { a = Relu(x) s = Shape(u) b = Expand(a, s) y = Neg(b) }", "Relu Shape Expand Neg"}},
                   0);
}

TEST(FoldConstants, TakesQuestionMarksForDifferentSizes) {
  const Model model = graph_of("g (float[\"?\",\"?\"] x) => (float[A,B] y) <int64[2] flip = {1, 0}> { s = Shape(x) t = Gather(s, flip) y = Reshape(x, t) }");
  EXPECT_EQ(ops(after(model, "fold_constants")), "Shape Gather Reshape");
}

const std::string kBranches = "<then_branch = t () => (float[N] p) { a = Mul(x, two) p = Add(a, k) }, else_branch = e () => (float[N] q) { q = Relu(x) }>";

TEST(FoldConstants, PutsTheBranchOfAConstantConditionInItsPlace) {
  const std::string begin = "g (float[N] x) => (float[N] y) <bool yes = {1}, bool no = {0}, float two = {2.0}, float k = {3.0}> ";
  expect_rewritten("fold_constants",
                   {{"true", begin + "{ r = If (yes) " + kBranches + " y = Neg(r) }", "Mul Add Neg"},
                    {"computed", begin + "{ c = Not(yes) r = If (c) " + kBranches + " y = Neg(r) }", "Relu Neg"},
                    {"the graph's output", begin + "{ y = If (yes) " + kBranches + " }", "Mul Add"},
                    {"an outer value given out", begin + "{ y = If (no) <then_branch = t () => (float[N] p) { p = Relu(x) }, else_branch = e () => (float[N] q) { q = Identity(x) }> }", "Identity"},
                    {"one in another", begin + "{ r = If (yes) <then_branch = t () => (float[N] p) { z = Neg(x) p = If (no) <then_branch = t2 () => (float[N] p2) { p2 = Exp(z) }, else_branch = e2 () => (float[N] q2) { q2 = Abs(z) }> }, else_branch = e () => (float[N] q) { q = Relu(x) }> y = Neg(r) }", "Neg Abs Neg"}},
                   0);
  EXPECT_EQ(after(graph_of(begin + "{ y = If (yes) " + kBranches + " }"), "fold_constants").graph->value(0).name, "x");
}

TEST(FoldConstants, InlinedBranchesKeepTheirInnerBodies) {
  expect_rewritten("fold_constants",
                   {{"a body in the branch", "g (bool c, float[N] x) => (float[N] y) <bool yes = {1}> { y = If (yes) <then_branch = t () => (float[N] p) { z = Neg(x) p = If (c) <then_branch = t2 () => (float[N] p2) { p2 = Mul(z, x) }, else_branch = e2 () => (float[N] q2) { q2 = Abs(z) }> }, else_branch = e () => (float[N] q) { q = Relu(x) }> }", "Neg If[Mul][Abs]"}}, 0);
}

TEST(FoldConstants, FoldsInBodiesWithConstantsFromOutside) {
  expect_rewritten("fold_constants",
                   {{"If", "g (bool c, float[N] x) => (float[N] y) <float two = {2.0}> { y = If (c) <then_branch = t () => (float[N] p) { a = Mul(two, two) p = Add(x, a) }, else_branch = e () => (float[N] q) { q = Relu(x) }> }", "If[Add][Relu]"}}, 0);
}

}  // namespace
}  // namespace infopt
