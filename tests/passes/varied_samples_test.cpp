#include "passes/support/varied_samples.h"

#include <gmock/gmock.h>

#include "passes/support/live_places.h"
#include "tests/passes/graph_helper.h"
#include "tests/passes/one_sample.h"

namespace infopt::test {
namespace {

/// A table of 80 rows: the first forty lie along one axis, the others along the other.
Model table_model() {
  Model model = model_of("g (int64[N,4] x) => (float[N,4,2] y) { y = Identity(x) }");
  GraphEdit edit(*model.graph);
  Tensor table = Tensor::zeros(DType::F32, {80, 2});
  for (int64_t r = 0; r < 80; ++r) table.mutable_data<float>()[r * 2 + r / 40] = 1 + 0.1f * static_cast<float>(r);
  const NodeId node = model.graph->order()[0];
  edit.set_op(node, "Gather");
  edit.set_inputs(node, {edit.add_constant(table), model.graph->inputs()[0]});
  edit.finish();
  return model;
}

std::vector<Sample> all_of(DataSet& data) {
  std::vector<Sample> out;
  data.reset();
  for (Sample s; data.next(s);) out.push_back(s);
  return out;
}

TEST(VariedSamples, IdsBecomeNeighboursAndWhatMostSamplesHoldStays) {
  const Model model = table_model();
  std::vector<Tensor> rows;
  for (int64_t i = 0; i < 16; ++i) rows.push_back(Tensor::of<int64_t>({1, 4}, {79, 10 + i % 4, 60 + i % 5, 0}));  // 79 and 0 in all
  HeldSamples data(rows);
  VariedSamples varied(data, *model.graph, 3);
  EXPECT_EQ(varied.size(), 16 + 3 * 14);  // the 8th and the 16th are held out
  const std::vector<Sample> samples = all_of(varied);
  ASSERT_EQ(static_cast<int64_t>(samples.size()), varied.size());
  int changed = 0;
  for (size_t s = 0; s < samples.size(); ++s) {
    EXPECT_EQ(samples[s].index, static_cast<int64_t>(s));
    const auto x = to_vector<int64_t>(samples[s].inputs.at("x")), was = to_vector<int64_t>(rows[static_cast<size_t>(varied.origin(static_cast<int64_t>(s)))]);
    EXPECT_EQ(x[0], 79);
    EXPECT_LT(x[1], 40);
    EXPECT_GE(x[2], 40);
    EXPECT_EQ(x[3], 0);
    if (s < 16) {
      EXPECT_EQ(x, was) << s;
    }
    changed += x != was;
  }
  EXPECT_GT(changed, 30);
  const std::vector<Sample> again = all_of(varied);
  for (size_t s = 0; s < samples.size(); ++s) EXPECT_EQ(to_vector<int64_t>(again[s].inputs.at("x")), to_vector<int64_t>(samples[s].inputs.at("x")));
  varied.give_held(false);
  EXPECT_EQ(static_cast<int64_t>(all_of(varied).size()), 4 * 14);
  EXPECT_EQ(varied.origin(7), 8);   // of those not held out the eighth
  EXPECT_EQ(varied.origin(14), 0);
}

TEST(VariedSamples, FloatsAreMixedWithAnEarlierSampleAndMasksStay) {
  const Model model = model_of("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }");
  HeldSamples data({Tensor::of<float>({1, 3}, {1, 2, 3}), Tensor::of<float>({1, 3}, {2, 4, 9}), Tensor::of<float>({1, 3}, {0, 1, 1})});
  VariedSamples varied(data, *model.graph, 1);
  const std::vector<Sample> samples = all_of(varied);
  ASSERT_EQ(samples.size(), 6u);
  const auto x = to_vector<float>(samples[4].inputs.at("x"));  // of 2, 4, 9 and one of the three
  const auto on = [&](std::vector<float> other) {
    const float share = (x[0] - other[0]) / (2 - other[0]);
    return share >= 0.5f && share <= 1 && std::fabs(x[1] - (share * 4 + (1 - share) * other[1])) < 1e-5f && std::fabs(x[2] - (share * 9 + (1 - share) * other[2])) < 1e-5f;
  };
  EXPECT_TRUE(on({1, 2, 3}) || on({0, 1, 1}) || x == (std::vector<float>{2, 4, 9})) << testing::PrintToString(x);
  EXPECT_EQ(to_vector<float>(samples[5].inputs.at("x")), (std::vector<float>{0, 1, 1}));
}

TEST(LivePlaces, WhatAMaskTakesOutIsDead) {
  const Model model = graph_of(R"(g (int64[N,4] x, float[64,6] w1, float[6,5] w2) => (float[N,5] y) {
    h = Gather(w1, x) a = MatMul(h, w2) t = Tanh(a) zero = Constant<value_int: int = 0>() live = Greater(x, zero) m = Cast<to: int = 1>(live)
    last = Constant<value_ints: ints = [-1]>() k = Unsqueeze(m, last) b = Mul(t, k) y = ReduceMean<axes: ints = [1], keepdims: int = 0>(b) })");
  HeldSamples data({Tensor::of<int64_t>({1, 4}, {5, 7, 0, 0}), Tensor::of<int64_t>({1, 4}, {1, 2, 3, 4}), Tensor::of<int64_t>({1, 4}, {9, 0, 8, 0})});
  VariedSamples varied(data, *model.graph, 2);
  const ValueId h = model.graph->find_value("h"), a = model.graph->find_value("a");
  const LivePlaces live(*model.graph, {{h, 2}, {a, 2}}, varied, 1);
  EXPECT_NEAR(live.dead_share(), 4.0 / 12, 1e-12);
  for (ValueId v : {h, a})
    for (int64_t s : {0, 3, 6}) EXPECT_THAT(*live.of({v, 2}, s), testing::ElementsAre(true, true, false, false)) << s;
  EXPECT_THAT(*live.of({a, 2}, 5), testing::ElementsAre(true, false, true, false));
  EXPECT_EQ(live.of({model.graph->find_value("y"), 1}, 0), nullptr);
  EXPECT_THAT(spread_places(4, live.of({a, 2}, 5), 9), testing::ElementsAre(0, 2));
  EXPECT_THAT(spread_places(6, nullptr, 3), testing::ElementsAre(0, 2, 4));
}

TEST(LivePlaces, WhatAMaximumDoesNotTakeIsAliveAllTheSame) {
  const Model model = graph_of(R"(g (int64[N,4] x, float[64,6] w1, float[6,5] w2) => (float[N,5] y) {
    h = Gather(w1, x) a = MatMul(h, w2) y = ReduceMax<axes: ints = [1], keepdims: int = 0>(a) })");
  HeldSamples data({Tensor::of<int64_t>({1, 4}, {5, 7, 5, 5}), Tensor::of<int64_t>({1, 4}, {1, 2, 3, 4})});
  VariedSamples varied(data, *model.graph, 2);
  const LivePlaces live(*model.graph, {{model.graph->find_value("a"), 2}}, varied, 1);
  EXPECT_EQ(live.dead_share(), 0);
  EXPECT_EQ(live.of({model.graph->find_value("a"), 2}, 0), nullptr);
}

}  // namespace
}  // namespace infopt::test
