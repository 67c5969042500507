#include "lib/autodiff/tape.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lib/autodiff/adam.h"
#include "lib/autodiff/fake_quantize.h"
#include "lib/base/error.h"
#include "tests/support/model_text.h"

namespace infopt::test {
namespace {

std::vector<float> values(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.size()}; }
Tensor row(std::initializer_list<float> v) { return Tensor::of<float>({1, static_cast<int64_t>(v.size())}, v); }

TEST(Tape, GradientsOfAValueThatIsReadTwiceAddUp) {
  const Model m = model_of("g (float[1,2] x) => (float[1,2] y) { a = Relu(x) \n b = Mul(a, a) \n y = Add(b, x) }");
  const Graph& g = *m.graph;
  const ValueId x = g.inputs()[0], y = g.outputs()[0];
  const Piece piece(g, {{x}, {y}, {x}});
  Tape tape(piece);
  tape.forward({{x, row({3, -2})}});
  EXPECT_EQ(values(tape.value(y)), (std::vector<float>{12, -2}));
  tape.backward({{y, row({1, 1})}});
  EXPECT_EQ(values(tape.gradient(x)), (std::vector<float>{7, 1}));  // 2·x + 1, and 1
}

TEST(Tape, AConstantIsLearnedWhereItIsFed) {
  const Model m = model_of("g (float[1,2] x) => (float[1,1] y) <float[2,1] w = {5, 6}> { y = MatMul(x, w) }");
  const Graph& g = *m.graph;
  const ValueId x = g.inputs()[0], y = g.outputs()[0], w = g.find_value("w");
  const Piece piece(g, {{x, w}, {y}, {w}});
  Tape tape(piece);
  for (float scale : {1.0f, 2.0f}) {  // nothing of an earlier run's weights is kept
    tape.forward({{x, row({1, 10})}, {w, Tensor::of<float>({2, 1}, {scale, scale})}});
    EXPECT_EQ(values(tape.value(y)), (std::vector<float>{11 * scale}));
  }
  tape.backward({{y, Tensor::of<float>({1, 1}, {3})}});
  EXPECT_EQ(values(tape.gradient(w)), (std::vector<float>{3, 30}));
}

TEST(Tape, WhatHangsOnConstantsAloneNeedsNoGradient) {
  const Model m = model_of("g (float[1,2] x) => (float[1,2] y) <float[2] w = {-5, 0.5}> { a = Ceil(w) \n y = Mul(x, a) }");
  const Graph& g = *m.graph;
  const ValueId x = g.inputs()[0], y = g.outputs()[0];
  const Piece piece(g, {{x}, {y}, {x}});
  Tape tape(piece);
  tape.forward({{x, row({1, 1})}});
  tape.backward({{y, row({1, 1})}});
  EXPECT_EQ(values(tape.gradient(x)), (std::vector<float>{-5, 1}));
}

TEST(Tape, SaysWhatHasNoGradient) {
  const Model m = model_of("g (float[1,2] x) => (float[1,2] y) { y = Ceil(x) }");
  const ValueId x = m.graph->inputs()[0];
  try {
    const Piece piece(*m.graph, {{x}, {m.graph->outputs()[0]}, {x}});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Unsupported);
    EXPECT_NE(std::string(e.what()).find("Ceil"), std::string::npos);
  }
}

constexpr const char* kRounding = "g (float[1,5] x) => (float[1,5] y) <float s = {0.5}, uint8 z = {10}> { q = QuantizeLinear(x, s, z) \n y = DequantizeLinear(q, s, z) }";

TEST(Tape, RoundingLetsGradientsThroughWithinTheCodes) {
  const Model m = model_of(kRounding);
  const ValueId x = m.graph->inputs()[0], y = m.graph->outputs()[0];
  const Piece piece(*m.graph, {{x}, {y}, {x}});
  Tape tape(piece);
  tape.forward({{x, row({0.3f, -0.25f, -7, 122, 200})}});
  EXPECT_EQ(values(tape.value(y)), (std::vector<float>{0.5f, 0, -5, 122, 122.5f}));  // codes −10 to 245 times a half; halves to even
  tape.backward({{y, row({1, 2, 3, 4, 5})}});
  EXPECT_EQ(values(tape.gradient(x)), (std::vector<float>{1, 2, 0, 4, 0}));
}

TEST(Tape, DropSparesHalfOfTheElementsTheirRoundingTheSameInEveryRun) {
  const FakeQuantizer q{.scale = 0.5f, .zero = 0, .low = 0, .high = 4};
  Tensor x(DType::F32, {1000});
  for (int64_t i = 0; i < 1000; ++i) x.mutable_data<float>()[i] = 0.3f;
  const Tensor y = fake_quantize(x, q, 42);
  int spared = 0;
  for (float v : values(y)) {
    spared += v == 0.3f;
    EXPECT_TRUE(v == 0.3f || v == 0.5f);
  }
  EXPECT_GT(spared, 430);
  EXPECT_LT(spared, 570);
  EXPECT_EQ(values(fake_quantize(x, q, 42)), values(y));
  EXPECT_NE(values(fake_quantize(x, q, 43)), values(y));
}

TEST(Tape, DropKeepsTheCodesRange) {
  const FakeQuantizer q{.scale = 0.5f, .zero = 0, .low = 0, .high = 4};
  Tensor x(DType::F32, {200});
  for (int64_t i = 0; i < 200; ++i) x.mutable_data<float>()[i] = i % 2 ? -1.0f : 100.0f;
  for (float v : values(fake_quantize(x, q, 7))) EXPECT_TRUE(v == 0 || v == 2) << v;  // a Relu that the codes stand for stays one
}

// x, m, v = 1.0, 0, 0
// for t in 1..3: g = 2*x; m = .9*m+.1*g; v = .999*v+.001*g*g; x -= .1*(m/(1-.9**t))/(np.sqrt(v/(1-.999**t))+1e-8)
TEST(Adam, FollowsThePapersAlgorithm) {
  Adam adam(1);
  float x = 1;
  for (double expected : {0.9, 0.8004122, 0.7015863}) {
    const float gradient = 2 * x;
    adam.step(&x, &gradient, 0.1f);
    EXPECT_NEAR(x, expected, 2e-6);
  }
}

}  // namespace
}  // namespace infopt::test
