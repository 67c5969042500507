// Products with their ends, and normalizations from their pieces, against the same graphs step by step.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "lib/base/error.h"
#include "lib/runtime/session.h"
#include "tests/support/model_text.h"

namespace infopt {
namespace {

using Inputs = std::map<std::string, Tensor>;

Tensor random_tensor(std::mt19937& r, Shape shape, float spread = 1.0f) {
  Tensor t(DType::F32, std::move(shape));
  std::normal_distribution<float> normal(0.1f, spread);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = normal(r);
  return t;
}

std::string numbers(std::mt19937& r, int64_t n) {
  std::normal_distribution<float> normal(0.2f, 1.0f);
  std::string s;
  for (int64_t i = 0; i < n; ++i) s += (i ? ", " : "") + std::to_string(normal(r));
  return "{" + s + "}";
}

/// As one step with 1, 2 and 3 threads, with the same bits, and like the graph step by step.
void check(const std::string& graph, const Inputs& in, size_t steps, double bound) {
  SCOPED_TRACE(graph.substr(0, 1500));
  const Model model = test::model_of(graph);
  std::vector<Tensor> fused;
  for (int threads : {1, 2, 3}) {
    SessionOptions options;
    options.threads = threads;
    options.profile = true;
    const Session session(*model.graph, options);
    fused.push_back(session.run(in)[0]);
    ASSERT_EQ(session.profile().size(), steps);
    ASSERT_EQ(std::memcmp(fused.back().raw(), fused[0].raw(), fused[0].bytes()), 0) << threads << " threads";
  }
  SessionOptions plain;
  plain.fuse = false;
  const Tensor expected = Session(*model.graph, plain).run(in)[0];
  ASSERT_EQ(fused[0].shape(), expected.shape());
  for (int64_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(fused[0].data<float>()[i], expected.data<float>()[i], bound * (1 + std::fabs(expected.data<float>()[i]))) << i;
}

TEST(FloatProduct, TakesItsBiasAndActivationInAnyForm) {
  std::mt19937 r(5);
  const std::string constants = "half = Constant<value_float = 0.5>() one = Constant<value_float = 1.0>() root = Constant<value_float = 1.41421356>() inverse = Constant<value_float = 0.70710678>()\n";
  const std::string ends[] = {
      "y = Relu(s)", "y = Gelu(s)", "y = Gelu<approximate = \"tanh\">(s)", "g = Sigmoid(s) y = Mul(s, g)", "g = Sigmoid(s) y = Mul(g, s)", "y = Identity(s)",
      "d = Div(s, root) e = Erf(d) a = Add(e, one) m = Mul(s, a) y = Mul(m, half)", "d = Mul(inverse, s) e = Erf(d) a = Add(one, e) m = Mul(s, half) y = Mul(m, a)",
      "d = Div(s, root) e = Erf(d) a = Add(e, one) m = Mul(half, a) y = Mul(s, m)"};
  for (const std::string& end : ends)
    for (const int form : {0, 1, 2}) {
      const int64_t k = 1 + static_cast<int64_t>(r() % 40), n = 2 + static_cast<int64_t>(r() % 70);
      const std::string w = std::to_string(form == 2 ? n : k) + ", " + std::to_string(form == 2 ? k : n);
      std::string graph = "g (float[" + std::string(form == 2 ? "a, b" : "a, b, c") + "] x) => (float[d, e" + (form == 2 ? "" : ", f") + "] y) <float[" + w + "] w = " + numbers(r, k * n) + ", float[" +
                          std::to_string(n) + "] bias = " + numbers(r, n) + "> {" + constants;
      if (form == 0) graph += "p = MatMul(x, w) s = Add(bias, p)";
      if (form == 1) graph += "s = MatMul(x, w)";
      if (form == 2) graph += "s = Gemm<transB = 1>(x, w, bias)";
      graph += "\n" + end + "}";
      const bool alone = end.find("Identity") != std::string::npos;
      const Shape shape = form == 2 ? Shape{7, k} : Shape{3, 5, k};
      check(graph, {{"x", random_tensor(r, shape)}}, alone ? 2 : 1, 2e-6 * static_cast<double>(k + 4));
    }
}

TEST(FloatProduct, LeavesABiasThatChangesTheShapeAlone) {
  std::mt19937 r(6);
  check("g (float[a, b] x) => (float[c, d] y) <float[3, 1] w = {1, 2, 3}, float[4] bias = {1, 2, 3, 4}> { p = MatMul(x, w) y = Add(p, bias) }", {{"x", random_tensor(r, {5, 3})}}, 2, 1e-6);
}

/// One run, fused, of a graph whose inputs are those; the steps left are `steps`.
Tensor run_fused(const std::string& graph, const Inputs& in, size_t steps) {
  const Model model = test::model_of(graph);
  SessionOptions options;
  options.profile = true;
  const Session session(*model.graph, options);
  EXPECT_EQ(session.profile().size(), steps) << graph;
  return session.run(in)[0];
}

TEST(FloatProduct, WithoutInnerElementsStillEndsWithItsBounds) {
  using testing::ElementsAre;
  const Inputs none{{"x", Tensor(DType::F32, {2, 0})}};
  const Tensor matmul = run_fused("g (float[a, b] x) => (float[c, d] y) { w = Constant<value = float[0, 3] {}>() low = Constant<value_float = 0.5>() p = MatMul(x, w) y = Clip(p, low) }", none, 1);
  EXPECT_THAT(to_vector<float>(matmul), ElementsAre(0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f));
  for (const char* alpha : {"1.0", "2.0"}) {
    const Tensor gemm = run_fused(std::string("g (float[a, b] x) => (float[c, d] y) { w = Constant<value = float[0, 3] {}>() c = Constant<value = float[3] {-1.0, 0.5, 2.0}>() "
                                              "high = Constant<value_float = 1.0>() p = Gemm<alpha = ") + alpha + ">(x, w, c) y = Clip(p, , high) }", none, 1);
    EXPECT_THAT(to_vector<float>(gemm), ElementsAre(-1.0f, 0.5f, 1.0f, -1.0f, 0.5f, 1.0f));
  }
  const Tensor halves = run_fused("g (float16[a, b] x) => (float16[c, d] y) { w = Constant<value = float16[0, 2] {}>() p = MatMul(x, w) y = Relu(p) }", {{"x", Tensor(DType::F16, {1, 0})}}, 1);
  EXPECT_THAT(to_vector<float>(halves), ElementsAre(0.0f, 0.0f));
}

TEST(FloatProduct, OfOtherElementTypesEndsWithItsBoundsToo) {
  using testing::ElementsAre;
  for (const DType type : {DType::I32, DType::I64, DType::F64, DType::F16, DType::BF16}) {
    const std::string name = type == DType::F64 ? "double" : std::string(name_of(type));
    SCOPED_TRACE(name);
    const auto of = [&](Shape shape, std::vector<float> v) { return cast(Tensor::of<float>(std::move(shape), std::span<const float>(v)), type); };
    const Inputs in{{"x", of({2, 2}, {1, 2, 3, -4})}, {"w", of({2, 2}, {5, -1, -2, 3})}};
    const std::string head = "g (" + name + "[a, b] x, " + name + "[b, c] w) => (" + name + "[a, c] y) {";
    EXPECT_THAT(to_vector<float>(run_fused(head + "p = MatMul(x, w) y = Relu(p) }", in, 1)), ElementsAre(1, 5, 23, 0));
    EXPECT_THAT(to_vector<float>(run_fused(head + "p = Gemm<transB = 1>(x, w) y = Relu(p) }", in, 1)), ElementsAre(3, 4, 19, 0));
  }
}

TEST(FloatProduct, OfTwoElementTypesIsAnError) {
  const Model model = test::model_of("g (a, b) => (y) { y = MatMul(a, b) }");
  EXPECT_THROW(Session(*model.graph).run(Inputs{{"a", Tensor(DType::F32, {4, 64})}, {"b", Tensor(DType::I8, {64, 4})}}), Error);
}

TEST(FloatProduct, OfLargeIntegersAndDoublesIsExact) {
  const Inputs in{{"x", Tensor::of<int64_t>({1, 2}, {123456789, 2})}, {"w", Tensor::of<int64_t>({2, 1}, {987654321, -1})}};
  EXPECT_THAT(to_vector<int64_t>(run_fused("g (int64[a, b] x, int64[b, c] w) => (int64[a, c] y) { y = Gemm(x, w) }", in, 1)), testing::ElementsAre(121932631112635267));
  const Inputs doubles{{"x", Tensor::of<double>({1, 2}, {0.1, 0.2})}, {"w", Tensor::of<double>({2, 1}, {3, 1})}, {"c", Tensor::of<double>({1}, {0.25})}};
  EXPECT_DOUBLE_EQ(run_fused("g (double[a, b] x, double[b, c] w, double[c] c) => (double[a, c] y) { y = Gemm<alpha = 0.5, beta = 2.0>(x, w, c) }", doubles, 1).data<double>()[0], 0.75);
}

TEST(RowNorm, RootMeanSquareInEveryFormThatExportsHave) {
  std::mt19937 r(7);
  const std::string squares[] = {"q = Mul(x, x)", "q = Pow(x, two)"};
  const std::string ends[] = {"i = Div(one, s) z = Mul(x, i)", "i = Reciprocal(s) z = Mul(i, x)", "z = Div(x, s)", "i = Div(one, s) z0 = Mul(x, i) z = Cast<to = 1>(z0)"};
  for (const std::string& square : squares)
    for (const std::string& end : ends)
      for (const int64_t n : {2, 16, 37, 256}) {
        const std::string graph = "g (float[a, b, c] x) => (float[d, e, f] y) <float[" + std::to_string(n) + "] w = " + numbers(r, n) + "> {\n"
                                  "two = Constant<value_float = 2.0>() one = Constant<value_float = 1.0>() epsilon = Constant<value_float = 0.00001>()\n" + square +
                                  "\n m = ReduceMean<axes = [-1], keepdims = 1>(q) v = Add(m, epsilon) s = Sqrt(v)\n" + end + "\n y = Mul(" + (n % 2 ? "w, z" : "z, w") + ") }";
        check(graph, {{"x", random_tensor(r, {3, 41, n}, 2.0f)}}, 1, 1e-5);
        check(graph, {{"x", random_tensor(r, {2, 3, 1})}}, 1, 1e-5);
      }
}

TEST(RowNorm, LayerNormalizationWithTheDifferenceOnceOrTwice) {
  std::mt19937 r(8);
  for (const bool twice : {false, true})
    for (const int64_t n : {2, 24, 100}) {
      const std::string graph = "g (float[a, b] x) => (float[d, e] y) <float[" + std::to_string(n) + "] w = " + numbers(r, n) + ", float[" + std::to_string(n) + "] b0 = " + numbers(r, n) + "> {\n"
                                "two = Constant<value_float = 2.0>() epsilon = Constant<value_float = 0.00001>()\n mean = ReduceMean<axes = [-1]>(x) d0 = Sub(x, mean)" +
                                (twice ? " d1 = Sub(x, mean)" : "") + "\n q = Pow(d0, two) m = ReduceMean<axes = [1]>(q) v = Add(epsilon, m) s = Sqrt(v) z = Div(" +
                                (twice ? "d1" : "d0") + ", s) g0 = Mul(z, w) y = Add(g0, b0) }";
      check(graph, {{"x", random_tensor(r, {300, n}, 3.0f)}}, 1, 2e-5);
    }
}

TEST(RowNorm, IsntFusedWhereAnInnerValueIsAnOutput) {
  const Model model = test::model_of(
      "g (float[a, 4] x) => (float[d, e] y, float[f, h] s) <float[4] w = {1, 2, 3, 4}> { q = Mul(x, x) m = ReduceMean<axes = [-1]>(q) epsilon = Constant<value_float = 0.001>() v = Add(m, epsilon) "
      "s = Sqrt(v) z = Div(x, s) y = Mul(z, w) }");
  SessionOptions options;
  options.profile = true;
  EXPECT_GT(Session(*model.graph, options).profile().size(), 1u);
}

}  // namespace
}  // namespace infopt
