#include "passes/support/distill.h"

#include <gmock/gmock.h>

#include "calibration/calibration.h"
#include "tests/passes/graph_helper.h"
#include "tests/passes/one_sample.h"

namespace infopt::test {
namespace {

struct Trained {
  Model model;
  DistillReport report;
};

std::vector<Tensor> rows_of(int count, int64_t width) {
  std::vector<Tensor> rows;
  for (int i = 0; i < count; ++i) rows.push_back(noise(DType::F32, {1, width}, 40 + static_cast<unsigned>(i)));
  return rows;
}

/// The model with the weights `w1` replaced, trained towards the model as it is.
Trained train(const Model& model, const Tensor& w1, const std::vector<Tensor>& rows, const DistillOptions& options, int threads = 1) {
  Trained out{copy_of(model), {}};
  HeldSamples data(rows);
  VariedSamples varied(data, *model.graph, 0);
  Calibration calibration({std::shared_ptr<void>(), &varied}, {});
  static const std::vector<GroupRule> kNoGroups;
  Report report;
  PassReport own;
  PassContext context{.model = out.model, .profile = find_profile("ort-cpu"), .groups = kNoGroups, .calibration = &calibration, .threads = threads, .report = report, .pass_report = own};
  GraphEdit edit(*out.model.graph);
  edit.set_constant(out.model.graph->find_value("w1"), w1);
  edit.finish();
  out.report = distill(edit, *model.graph, [](ValueId, int64_t) { return std::vector<bool>(); }, varied, options, context);
  return out;
}

Tensor moved(const Tensor& t, float by) {
  Tensor out = t.clone();
  for (int64_t i = 0; i < t.size(); ++i) out.mutable_data<float>()[i] += by * (i % 2 == 0 ? 1.0f : -1.0f);
  return out;
}

const Model& linear() {
  static const Model model = graph_of("g (float[N,3] x, float[3,2] w1) => (float[N,2] y) { y = MatMul(x, w1) }");
  return model;
}

// Adam's first step is rate·sign(gradient), here rate = 0.003·rms(W)·⅓ (it warms up), and for a linear layer the gradient is 2·XᵀX·(W − W₀)/…
TEST(Distill, TheFirstStepGoesDownTheGradientByTheRate) {
  const Tensor &w0 = linear().graph->value(linear().graph->find_value("w1")).constant, start = moved(w0, 0.3f);
  const std::vector<Tensor> rows = rows_of(16, 3);
  const Trained t = train(linear(), start, rows, {.steps = 1, .batch = 100, .rate = 0.003, .within = 0});
  ASSERT_EQ(t.report.steps, 1);
  std::vector<double> gradient(6, 0);
  for (int s = 0; s < 16; ++s) {
    if (s % 8 == 7) continue;
    const float* x = rows[static_cast<size_t>(s)].data<float>();
    for (int o = 0; o < 2; ++o) {
      double d = 0;
      for (int i = 0; i < 3; ++i) d += static_cast<double>(x[i]) * static_cast<double>(start.data<float>()[i * 2 + o] - w0.data<float>()[i * 2 + o]);
      for (int i = 0; i < 3; ++i) gradient[static_cast<size_t>(i * 2 + o)] += d * static_cast<double>(x[i]);
    }
  }
  double square = 0;
  for (float v : to_vector<float>(start)) square += static_cast<double>(v) * static_cast<double>(v) / 6;
  const auto now = to_vector<float>(constant_of(t.model, "MatMul", 1));
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(now[i] - start.data<float>()[i], -0.001 * std::sqrt(square) * (gradient[i] > 0 ? 1 : -1), 1e-6) << i;
}

TEST(Distill, WhatTheOriginalGaveIsFoundAgain) {
  const Model model = graph_of("g (float[N,6] x, float[6,8] w1, float[8] wb, float[8,5] w2, float[5] wc) => (float[N,5] y) { a = Gemm(x, w1, wb) b = Relu(a) c = Gemm(b, w2, wc) y = Softmax(c) }");
  const Tensor start = moved(model.graph->value(model.graph->find_value("w1")).constant, 0.2f);
  const Trained t = train(model, start, rows_of(64, 6), {.steps = 400, .batch = 16, .rate = 0.01});
  EXPECT_GT(t.report.steps, 100);
  EXPECT_LT(t.report.noise_after, 0.1 * t.report.noise_before);
  const Trained again = train(model, start, rows_of(64, 6), {.steps = 400, .batch = 16, .rate = 0.01}, 4);
  EXPECT_EQ(to_vector<float>(constant_of(again.model, "Gemm", 1)), to_vector<float>(constant_of(t.model, "Gemm", 1)));  // to the bit, with four threads
}

TEST(Distill, WhatIsBestAlreadyStays) {
  const Tensor w0 = linear().graph->value(linear().graph->find_value("w1")).constant;
  const Trained t = train(linear(), w0, rows_of(16, 3), {.steps = 20});
  EXPECT_EQ(t.report.steps, 0);
  EXPECT_EQ(to_vector<float>(constant_of(t.model, "MatMul", 1)), to_vector<float>(w0));
}

TEST(Distill, ItEndsWhenNothingIsToBeGained) {
  const Tensor w0 = linear().graph->value(linear().graph->find_value("w1")).constant;
  // At the full rate, a quarter and a sixteenth of it, and no longer.
  EXPECT_EQ(train(linear(), w0, rows_of(16, 3), {.steps = 2000, .first = 20}).report.run, 60);
}

TEST(Distill, CyclesGetLongerWhileTheyPay) {
  const Tensor start = moved(linear().graph->value(linear().graph->find_value("w1")).constant, 0.3f);
  const Trained t = train(linear(), start, rows_of(16, 3), {.steps = 140, .first = 20, .rate = 0.01});
  EXPECT_EQ(t.report.run, 140);
  EXPECT_EQ(t.report.steps, 140);
}

TEST(Distill, WhatCannotBeTriedIsSaid) {
  const Tensor w0 = linear().graph->value(linear().graph->find_value("w1")).constant;
  EXPECT_THAT(train(linear(), w0, rows_of(9, 3), {.steps = 20}).report.obstacle, testing::HasSubstr("too few samples"));
  const Model odd = graph_of("g (float[N,3] x, float[3,2] w1) => (float[N,2] y) { a = MatMul(x, w1) y = Round(a) }");
  EXPECT_THAT(train(odd, w0, rows_of(16, 3), {.steps = 20}).report.obstacle, testing::HasSubstr("no gradient of Round"));
}

/// Floor has no gradient: the first product stays, and the second is learned from what the Floor gives out.
TEST(Distill, WhatLiesBeforeAnOperatorWithoutAGradientStays) {
  const Model model = graph_of("g (float[N,3] x, float[3,4] w0, float[4,2] w1) => (float[N,2] y) { a = MatMul(x, w0) b = Floor(a) y = MatMul(b, w1) }");
  const Tensor &w0 = model.graph->value(model.graph->find_value("w0")).constant, &w1 = model.graph->value(model.graph->find_value("w1")).constant;
  const Trained t = train(model, moved(w1, 0.3f), rows_of(32, 3), {.steps = 300, .batch = 16, .rate = 0.02, .within = 0.5});
  EXPECT_EQ(t.report.boundary, "Floor");
  EXPECT_EQ(t.report.obstacle, "");
  EXPECT_LT(t.report.noise_after, 0.05 * t.report.noise_before);
  EXPECT_EQ(to_vector<float>(t.model.graph->value(t.model.graph->find_value("w0")).constant), to_vector<float>(w0));
}

TEST(Distill, ALoopIsRunOnceForEachSampleAndWhatFollowsIsLearned) {
  const Model model = graph_of(R"(g (float[1,3] x, float[3,3] w0, float[3,2] w1) => (float[1,2] y) {
    n = Constant <value = int64 {3}> () go = Constant <value = bool {1}> ()
    a = Loop(n, go, x) <body = b (int64 i, bool c, float[1,3] s) => (bool d, float[1,3] t) { d = Identity(c) u = MatMul(s, w0) t = Tanh(u) }>
    y = MatMul(a, w1) })");
  const Trained t = train(model, moved(model.graph->value(model.graph->find_value("w1")).constant, 0.3f), rows_of(32, 3), {.steps = 300, .batch = 16, .rate = 0.02, .within = 0});
  EXPECT_EQ(t.report.boundary, "");  // nothing before it could be learned
  EXPECT_LT(t.report.noise_after, 0.05 * t.report.noise_before);
}

TEST(Distill, NothingBehindTheLastOperatorWithoutAGradientIsSaid) {
  const Model model = graph_of("g (float[N,3] x, float[3,2] w1) => (float[N,2] y) { a = MatMul(x, w1) y = Floor(a) }");
  const Trained t = train(model, moved(model.graph->value(model.graph->find_value("w1")).constant, 0.3f), rows_of(32, 3), {.steps = 10});
  EXPECT_THAT(t.report.obstacle, testing::HasSubstr("no gradient of Floor"));
}

TEST(Distill, RecurrentWeightsAreLearned) {
  const Model model = graph_of("g (float[5,2,3] x, float[1,12,3] w0, float[1,12,4] w1) => (float[1,2,4] y) { a, y = GRU<hidden_size=4>(x, w0, w1) }");
  const Tensor& w1 = model.graph->value(model.graph->find_value("w1")).constant;
  std::vector<Tensor> rows;
  for (unsigned i = 0; i < 32; ++i) rows.push_back(noise(DType::F32, {5, 2, 3}, 40 + i));
  const Trained t = train(model, moved(w1, 0.3f), rows, {.steps = 300, .batch = 16, .rate = 0.02, .within = 0});
  EXPECT_LT(t.report.noise_after, 0.05 * t.report.noise_before);
}

}  // namespace
}  // namespace infopt::test
