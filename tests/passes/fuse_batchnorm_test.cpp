#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

const std::string kNorm = "float[4] w_gain, float[4] w_shift, float[4] w_mean, float[4] v_var";

TEST(FuseBatchNorm, GoesIntoTheWeightsOfWhatComesBefore) {
  expect_rewritten("fuse_batchnorm",
                   {{"Conv", "g (float[N,3,5,5] x, float[4,3,3,3] w, " + kNorm + ") => (float[N,4,5,5] y) { a = Conv <pads=[1,1,1,1]> (x, w) y = BatchNormalization <epsilon=0.01> (a, w_gain, w_shift, w_mean, v_var) }", "Conv"},
                    {"Conv with bias and groups", "g (float[N,4,5,5] x, float[4,2,3,3] w, float[4] wb, " + kNorm + ") => (float[N,4,3,3] y) { a = Conv <group=2> (x, w, wb) y = BatchNormalization (a, w_gain, w_shift, w_mean, v_var) }", "Conv"},
                    {"one-dimensional Conv", "g (float[N,3,9] x, float[4,3,3] w, " + kNorm + ") => (float[N,4,7] y) { a = Conv (x, w) y = BatchNormalization (a, w_gain, w_shift, w_mean, v_var) }", "Conv"},
                    {"ConvTranspose", "g (float[N,3,5,5] x, float[3,4,3,3] w, " + kNorm + ") => (float[N,4,11,11] y) { a = ConvTranspose <strides=[2,2]> (x, w) y = BatchNormalization (a, w_gain, w_shift, w_mean, v_var) }", "ConvTranspose"},
                    {"ConvTranspose with groups", "g (float[N,6,5,5] x, float[6,2,3,3] w, float[4] wb, " + kNorm + ") => (float[N,4,7,7] y) { a = ConvTranspose <group=2> (x, w, wb) y = BatchNormalization (a, w_gain, w_shift, w_mean, v_var) }", "ConvTranspose"},
                    {"Gemm", "g (float[N,3] x, float[3,4] w, float[4] wb, " + kNorm + ") => (float[N,4] y) { a = Gemm <alpha=0.5, beta=2.0> (x, w, wb) y = BatchNormalization (a, w_gain, w_shift, w_mean, v_var) }", "Gemm"},
                    {"Gemm with weights transposed", "g (float[N,3] x, float[4,3] w, " + kNorm + ") => (float[N,4] y) { a = Gemm <transB=1> (x, w) y = BatchNormalization (a, w_gain, w_shift, w_mean, v_var) }", "Gemm"}},
                   kRounding);
}

TEST(FuseBatchNorm, TakesConstantsPerChannelToo) {
  expect_rewritten("fuse_batchnorm",
                   {{"scale and shift", "g (float[N,3,5,5] x, float[4,3,3,3] w, float[1,4,1,1] w_s, float[4,1,1] w_t, " + kNorm + ") => (float[N,4,3,3] y) { a = Conv (x, w) b = Mul(w_s, a) c = Add(b, w_t) y = BatchNormalization (c, w_gain, w_shift, w_mean, v_var) }", "Conv"},
                    {"quotient and differences", "g (float[N,3,5,5] x, float[4,3,3,3] w, float[4,1,1] v_s, float[4,1,1] w_t) => (float[N,4,3,3] y) { a = Conv (x, w) b = Div(a, v_s) c = Sub(b, w_t) y = Sub(w_t, c) }", "Conv"},
                    {"one number for all", "g (float[N,3,5,5] x, float[4,3,3,3] w, float w_s) => (float[N,4,3,3] y) { a = Conv (x, w) y = Mul(a, w_s) }", "Conv"}},
                   kRounding);
}

TEST(FuseBatchNorm, GoesIntoTheConvBehindWhereThereAreNoPads) {
  const std::string norm = "float[3] w_gain, float[3] w_shift, float[3] w_mean, float[3] v_var";
  const std::string open = "g (float[N,3,5,5] x, float[4,3,3,3] w, " + norm + ") => (float[N,4,A,B] y) { a = BatchNormalization (x, w_gain, w_shift, w_mean, v_var) y = Conv ";
  expect_rewritten("fuse_batchnorm",
                   {{"no pads", open + "(a, w) }", "Conv"},
                    {"VALID", open + "<auto_pad=\"VALID\"> (a, w) }", "Conv"},
                    {"pads: the shift isn't in them", open + "<pads=[1,1,1,1]> (a, w) }", "BatchNormalization Conv"},
                    {"SAME", open + "<auto_pad=\"SAME_UPPER\"> (a, w) }", "BatchNormalization Conv"},
                    {"groups", "g (float[N,6,5,5] x, float[4,3,3,3] w, float[6] w_gain, float[6] w_shift, float[6] w_mean, float[6] v_var, float[4] wb) => (float[N,4,3,3] y) { a = BatchNormalization (x, w_gain, w_shift, w_mean, v_var) y = Conv <group=2> (a, w, wb) }", "Conv"}},
                   kRounding);
}

TEST(FuseBatchNorm, LeavesWhatOthersReadOrWhatIsntConstant) {
  expect_rewritten("fuse_batchnorm",
                   {{"the product is an output", "g (float[N,3,5,5] x, float[4,3,3,3] w, " + kNorm + ") => (float[N,4,3,3] y, float[N,4,3,3] a) { a = Conv (x, w) y = BatchNormalization (a, w_gain, w_shift, w_mean, v_var) }", "Conv BatchNormalization"},
                    {"the product is read twice", "g (float[N,3,5,5] x, float[4,3,3,3] w, " + kNorm + ") => (float[N,4,3,3] y) { a = Conv (x, w) b = BatchNormalization (a, w_gain, w_shift, w_mean, v_var) y = Add(a, b) }", "Conv BatchNormalization Add"},
                    {"two Convs share the weights", "g (float[N,3,5,5] x, float[4,3,3,3] w, " + kNorm + ") => (float[N,4,3,3] y, float[N,4,3,3] z) { a = Conv (x, w) y = BatchNormalization (a, w_gain, w_shift, w_mean, v_var) z = Conv <dilations=[1,1]> (x, w) }", "Conv BatchNormalization Conv"},
                    {"computed parameters", "g (float[N,3,5,5] x, float[4,3,3,3] w, float[4] gain, " + kNorm + ") => (float[N,4,3,3] y) { a = Conv (x, w) y = BatchNormalization (a, gain, w_shift, w_mean, v_var) }", "Conv BatchNormalization"},
                    {"computed weights", "g (float[N,3,5,5] x, float[4,3,3,3] k, " + kNorm + ") => (float[N,4,3,3] y) { a = Conv (x, k) y = BatchNormalization (a, w_gain, w_shift, w_mean, v_var) }", "Conv BatchNormalization"},
                    {"a constant along the width", "g (float[N,3,5,5] x, float[3,3,3,3] w, float[3] w_s) => (float[N,3,3,3] y) { a = Conv (x, w) y = Mul(a, w_s) }", "Conv Mul"},
                    {"a constant that widens the result", "g (float[N,3,5,5] x, float[1,3,3,3] w, float[4,1,1] w_s) => (float[N,4,3,3] y) { a = Conv (x, w) y = Mul(a, w_s) }", "Conv Mul"}},
                   0);
}

TEST(FuseBatchNorm, LeavesNormalizationsThatAreNotFinite) {
  Model model = graph_of("g (float[N,1,3,3] x, float[1,1,1,1] w) => (float[N,1,3,3] y) <float[1] one = {1.0}, float[1] zero = {0.0}, float[1] negative = {-1.0}> "
                         "{ a = Conv (x, w) y = BatchNormalization (a, one, zero, zero, negative) }");
  EXPECT_EQ(ops(after(model, "fuse_batchnorm")), "Conv BatchNormalization");
}

// scale 2/√(0.75 + 0.25) = 2; weight 3·2, bias (1 − 0.5)·2 + 4.
TEST(FuseBatchNorm, ComputesTheFormula) {
  Model model = graph_of("g (float[N,1,1,1] x) => (float[N,1,1,1] y) <float[1,1,1,1] k = {3.0}, float[1] b = {1.0}, float[1] gain = {2.0}, float[1] shift = {4.0}, float[1] mean = {0.5}, float[1] var = {0.75}> "
                         "{ a = Conv (x, k, b) y = BatchNormalization <epsilon=0.25> (a, gain, shift, mean, var) }");
  const Model result = after(model, "fuse_batchnorm");
  EXPECT_EQ(to_vector<double>(constant_of(result, "Conv", 1)), std::vector<double>{6});
  EXPECT_EQ(to_vector<double>(constant_of(result, "Conv", 2)), std::vector<double>{5});
}

TEST(FuseBatchNorm, WorksInBodiesToo) {
  expect_rewritten("fuse_batchnorm",
                   {{"If", "g (bool c, float[N,3,5,5] x) => (float[N,1,3,3] y) { y = If (c) <then_branch = t () => (float[N,1,3,3] p) <float[1,3,3,3] k = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9}, float m = {2.0}> "
                           "{ a = Conv (x, k) p = Mul (a, m) }, else_branch = e () => (float[N,1,3,3] q) <float[1,3,3,3] k2 = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9}> { q = Conv (x, k2) }> }",
                     "If[Conv][Conv]"}},
                   kRounding);
}

}  // namespace
}  // namespace infopt
