#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

std::string norm(const std::string& nodes, const std::string& weights = ", float[8] w_g, float[8] w_b") {
  return "g (float[N,4,8] x" + weights + ") => (float[N,4,8] y) <float eps = {0.00001}, float two = {2.0}, float half = {0.5}, float one = {1.0}, float minus = {-0.5}> { " + nodes + " }";
}
const std::string kMean = "m = ReduceMean <axes=[-1]> (x) d = Sub(x, m) ";
const std::string kSquare = "s = Mul(d, d) ";
const std::string kVariance = "v = ReduceMean <axes=[-1]> (s) e = Add(v, eps) ";
const std::string kAffine = " t = Mul(q, w_g) y = Add(t, w_b)";

TEST(FuseLayerNorm, RecognizesEveryFormThatExportersWrite) {
  const std::string start = kMean + kSquare + kVariance;
  expect_rewritten("fuse_layernorm",
                   {{"d/√", norm(start + "r = Sqrt(e) q = Div(d, r)" + kAffine), "LayerNormalization"},
                    {"Pow", norm(kMean + "s = Pow(d, two) " + kVariance + "r = Sqrt(e) q = Div(d, r)" + kAffine), "LayerNormalization"},
                    {"d·(1/√)", norm(start + "r = Sqrt(e) i = Div(one, r) q = Mul(d, i)" + kAffine), "LayerNormalization"},
                    {"Reciprocal, first", norm(start + "r = Sqrt(e) i = Reciprocal(r) q = Mul(i, d)" + kAffine), "LayerNormalization"},
                    {"powers", norm(start + "i = Pow(e, minus) q = Mul(d, i)" + kAffine), "LayerNormalization"},
                    {"two subtractions", norm(kMean + "d2 = Sub(x, m) s = Pow(d2, two) " + kVariance + "r = Sqrt(e) q = Div(d, r)" + kAffine), "LayerNormalization"},
                    {"ε first", norm(kMean + kSquare + "v = ReduceMean <axes=[-1]> (s) e = Add(eps, v) r = Sqrt(e) q = Div(d, r)" + kAffine), "LayerNormalization"},
                    {"positive axis", norm("m = ReduceMean <axes=[2]> (x) d = Sub(x, m) " + kSquare + kVariance + "r = Sqrt(e) q = Div(d, r)" + kAffine), "LayerNormalization"},
                    {"without β", norm(start + "r = Sqrt(e) q = Div(d, r) y = Mul(w_g, q)"), "LayerNormalization"},
                    {"without γ and β", norm(start + "r = Sqrt(e) y = Div(d, r)"), "LayerNormalization"},
                    {"two axes", norm("m = ReduceMean <axes=[1,2]> (x) d = Sub(x, m) s = Mul(d, d) v = ReduceMean <axes=[2,1]> (s) e = Add(v, eps) r = Sqrt(e) q = Div(d, r) t = Mul(q, w_g) y = Add(t, w_b)", ", float[4,8] w_g, float[1,4,8] w_b"), "LayerNormalization"}},
                   kRounding);
}

TEST(FuseLayerNorm, LeavesAxesThatAreNotTheLast) {
  expect_rewritten("fuse_layernorm",
                   {{"the middle", norm("m = ReduceMean <axes=[1]> (x) d = Sub(x, m) s = Mul(d, d) v = ReduceMean <axes=[1]> (s) e = Add(v, eps) r = Sqrt(e) y = Div(d, r)"), "ReduceMean Sub Mul ReduceMean Add Sqrt Div"},
                    {"different ones", norm("m = ReduceMean <axes=[-1]> (x) d = Sub(x, m) s = Mul(d, d) v = ReduceMean <axes=[1,2]> (s) e = Add(v, eps) r = Sqrt(e) y = Div(d, r)"), "ReduceMean Sub Mul ReduceMean Add Sqrt Div"},
                    {"the root mean square", norm("s = Mul(x, x) v = ReduceMean <axes=[-1]> (s) e = Add(v, eps) r = Sqrt(e) y = Div(x, r)"), "Mul ReduceMean Add Sqrt Div"},
                    {"a gain of another shape stays behind", norm(kMean + kSquare + kVariance + "r = Sqrt(e) q = Div(d, r) y = Mul(q, w_g)", ", float[4,1] w_g"), "LayerNormalization Mul"}},
                   kRounding);
}

TEST(FuseLayerNorm, LeavesDoubles) {
  const Model model = graph_of("g (double[N,8] x) => (double[N,8] y) <double eps = {0.00001}> { m = ReduceMean <axes=[-1]> (x) d = Sub(x, m) s = Mul(d, d) v = ReduceMean <axes=[-1]> (s) e = Add(v, eps) r = Sqrt(e) y = Div(d, r) }");
  EXPECT_EQ(ops(after(model, "fuse_layernorm")), "ReduceMean Sub Mul ReduceMean Add Sqrt Div");
}

}  // namespace
}  // namespace infopt
