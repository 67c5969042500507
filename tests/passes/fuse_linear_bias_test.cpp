#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

TEST(FuseLinearBias, MakesAddedConstantsTheBias) {
  expect_rewritten("fuse_linear_bias",
                   {{"Conv", "g (float[N,3,5,5] x, float[4,3,3,3] w, float[1,4,1,1] wb) => (float[N,4,3,3] y) { a = Conv (x, w) y = Add(a, wb) }", "Conv"},
                    {"Conv that has one", "g (float[N,3,5,5] x, float[4,3,3,3] w, float[4] wa, float[4,1,1] wb) => (float[N,4,3,3] y) { a = Conv (x, w, wa) y = Add(wb, a) }", "Conv"},
                    {"Conv whose weights another reads", "g (float[N,3,5,5] x, float[4,3,3,3] w, float[4,1,1] wb) => (float[N,4,3,3] y, float[N,4,3,3] z) { a = Conv (x, w) y = Add(a, wb) z = Conv (x, w) }", "Conv Conv"},
                    {"ConvTranspose", "g (float[N,3,5,5] x, float[3,2,3,3] w, float[1,2,1,1] wb) => (float[N,2,7,7] y) { a = ConvTranspose (x, w) y = Add(a, wb) }", "ConvTranspose"},
                    {"Gemm", "g (float[N,3] x, float[3,4] w, float[4] wb) => (float[N,4] y) { a = Gemm (x, w) y = Add(a, wb) }", "Gemm"},
                    {"Gemm with beta", "g (float[N,3] x, float[3,4] w, float[1,4] wa, float[4] wb) => (float[N,4] y) { a = Gemm <beta=0.5> (x, w, wa) y = Add(a, wb) }", "Gemm"},
                    {"MatMul of two axes", "g (float[N,3] x, float[3,4] w, float[4] wb) => (float[N,4] y) { a = MatMul (x, w) y = Add(wb, a) }", "Gemm"},
                    {"MatMul and one number", "g (float[N,3] x, float[3,4] w, float wb) => (float[N,4] y) { a = MatMul (x, w) y = Add(a, wb) }", "Gemm"}},
                   kRounding);
}

TEST(FuseLinearBias, LeavesTheRest) {
  expect_rewritten("fuse_linear_bias",
                   {{"MatMul of three axes", "g (float[N,2,3] x, float[3,4] w, float[4] wb) => (float[N,2,4] y) { a = MatMul (x, w) y = Add(a, wb) }", "MatMul Add"},
                    {"a bias per row", "g (float[2,3] x, float[3,4] w, float[2,1] wb) => (float[2,4] y) { a = MatMul (x, w) y = Add(a, wb) }", "MatMul Add"},
                    {"a product that others read", "g (float[N,3] x, float[3,4] w, float[4] wb) => (float[N,4] y, float[N,4] a) { a = MatMul (x, w) y = Add(a, wb) }", "MatMul Add"},
                    {"a bias that is computed", "g (float[N,3] x, float[3,4] w, float[4] b) => (float[N,4] y) { a = Gemm (x, w) y = Add(a, b) }", "Gemm Add"},
                    {"a sum of two products", "g (float[N,3] x, float[3,4] w, float[3,4] ww) => (float[N,4] y) { a = Gemm (x, w) b = Gemm(x, ww) y = Add(a, b) }", "Gemm Gemm Add"}},
                   0);
}

}  // namespace
}  // namespace infopt
