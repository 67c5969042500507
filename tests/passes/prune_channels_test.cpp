#include <gmock/gmock.h>

#include "passes/support/choose_channels.h"
#include "passes/support/ridge.h"
#include "tests/passes/graph_helper.h"
#include "tests/passes/one_sample.h"

namespace infopt::test {
namespace {

/// A net whose hidden channels 1 and 4 are copies of 0 and 3 when `copies`.
Model hidden_net(bool copies) {
  Model model = graph_of("g (float[N,6] x, float[6,8] w1, float[8] wb, float[8,5] w2, float[5] wc) => (float[N,5] y) { a = Gemm(x, w1, wb) b = Relu(a) y = Gemm(b, w2, wc) }");
  if (!copies) return model;
  GraphEdit edit(*model.graph);
  for (const char* name : {"w1", "wb"}) {
    const ValueId id = model.graph->find_value(name);
    Tensor t = model.graph->value(id).constant.clone();
    for (int64_t r = 0; r < t.size() / 8; ++r)
      for (int64_t c : {0, 3}) t.mutable_data<float>()[r * 8 + c + 1] = t.data<float>()[r * 8 + c];
    edit.set_constant(id, t);
  }
  return model;
}

struct Outcome {
  Model model;
  Report report;
  std::string notes() const {
    std::string all;
    for (const PassReport& p : report.passes)
      for (const std::string& n : p.edits.notes) all += n + "\n";
    return all;
  }
};

Outcome prune(const Model& model, const Settings& settings, const Tensor& x) {
  Outcome out{copy_of(model), {}};
  Options options;
  for (const OptionDef& o : find_pass("prune_channels")->options) options.set(o.name, o.otherwise);
  for (const auto& [name, value] : settings) options.set(name, value);
  Calibration calibration(std::make_shared<OneSample>(x), {});
  static const std::vector<GroupRule> kNoGroups;
  run_pipeline(out.model, {{"prune_channels", options}}, {.profile = find_profile("ort-cpu"), .groups = kNoGroups, .calibration = &calibration}, out.report);
  return out;
}

std::vector<float> run_on(const Model& m, const Tensor& x) { return to_vector<float>(Session(*m.graph).run(std::map<std::string, Tensor>{{"x", x}})[0]); }

TEST(PruneChannels, CopiesGoFirstAndNothingIsLost) {
  const Model model = hidden_net(true);
  const Tensor x = noise(DType::F32, {200, 6}, 7), other = noise(DType::F32, {50, 6}, 8);
  const Outcome out = prune(model, {{"reduce", 0.25}, {"multiple_of", int64_t{1}}}, x);
  EXPECT_EQ(constant_of(out.model, "Gemm", 1).shape(), (Shape{6, 6}));
  const auto a = run_on(model, other), b = run_on(out.model, other);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 0.05) << i;
  EXPECT_THAT(out.notes(), testing::HasSubstr("8 → 6 neurons"));
}

TEST(PruneChannels, RepairComesCloserThanNone) {
  const Model model = hidden_net(false);
  const Tensor x = noise(DType::F32, {400, 6}, 7), other = noise(DType::F32, {100, 6}, 8);
  const auto reference = run_on(model, other);
  std::vector<double> noises;
  for (const std::string repair : {"none", "refit"}) {
    const auto y = run_on(prune(model, {{"reduce", 0.35}, {"multiple_of", int64_t{1}}, {"repair", repair}}, x).model, other);
    double noise = 0;
    for (size_t i = 0; i < y.size(); ++i) noise += std::pow(static_cast<double>(y[i] - reference[i]), 2);
    noises.push_back(noise);
  }
  EXPECT_LT(noises[1], 0.5 * noises[0]);
}

TEST(PruneChannels, WhatCannotBeReachedIsSaidAndTheMostIsDone) {
  const Outcome out = prune(hidden_net(false), {{"reduce", 0.9}, {"most", 0.5}, {"multiple_of", int64_t{1}}}, noise(DType::F32, {50, 6}, 7));
  EXPECT_EQ(constant_of(out.model, "Gemm", 1).shape(), (Shape{6, 4}));
  ASSERT_EQ(out.report.warnings.size(), 1u);
  EXPECT_THAT(out.report.warnings[0], testing::HasSubstr("50.0 % is the most"));
}

TEST(PruneChannels, NothingToTakeOutIsSaid) {
  const Model model = graph_of("g (float[N,6] x, float[6,8] w1) => (float[N,8] y) { a = Gemm(x, w1) y = Relu(a) }");
  const Outcome out = prune(model, {}, noise(DType::F32, {50, 6}, 7));
  EXPECT_EQ(ops(out.model), "Gemm Relu");
  ASSERT_EQ(out.report.warnings.size(), 1u);
  EXPECT_THAT(out.report.warnings[0], testing::HasSubstr("nothing"));
}

TEST(PruneChannels, EveryScoreAndTargetReachesTheTarget) {
  const Model model = hidden_net(false);
  const Tensor x = noise(DType::F32, {60, 6}, 7);
  for (const std::string score : {"reconstruction", "activation", "l1", "l2", "bn_scale"})
    for (const std::string target : {"flops", "params", "size"})
      for (const std::string ratios : {"sensitivity", "uniform"}) {
        const Outcome out = prune(model, {{"score", score}, {"target", target}, {"ratios", ratios}, {"reduce", 0.5}, {"multiple_of", int64_t{1}}}, x);
        EXPECT_TRUE(out.report.warnings.empty()) << score << target << ratios;
        EXPECT_EQ(constant_of(out.model, "Gemm", 1).shape().back(), 4 - (target != "flops")) << score << target << ratios;
      }
}

TEST(PruneChannels, WhatBodiesOfControlFlowMultiplyIsPartOfTheWhole) {
  const Model model = graph_of("g (float[N,6] x, bool[1] c, float[6,8] w1, float[8,2] w2) => (float[N,2] y, float[2,2] z) { a = MatMul(x, w1) y = MatMul(a, w2) "
                               "z = If (c) <then_branch = t () => (float[2,2] p) { k = Constant <value = float[2,2] {1.0,2.0,3.0,4.0}> () p = MatMul(k, k) }, "
                               "else_branch = e () => (float[2,2] q) { l = Constant <value = float[2,2] {1.0,2.0,3.0,4.0}> () q = MatMul(l, l) }> }");
  const Dimensions d(model, *model.graph, {});
  const GraphCosts costs = count_costs(*model.graph, declared_shapes(*model.graph));
  EXPECT_EQ(costs.macs, 6 * 8 + 8 * 2 + 2 * 8);
  EXPECT_DOUBLE_EQ(RemovalCosts(d, costs, RemovalCosts::Unit::Macs).total(), 6 * 8 + 8 * 2 + 2 * 8);
}
TEST(PruneChannels, ATargetOfTimeIsMeasuredOnBothGraphs) {
  Model model = graph_of("g (float[N,3,16,16] x, float[64,3,3,3] w1, float[64,64,3,3] w2, float[2,64,1,1] w3) => (float[N,2,12,12] y) { a = Conv(x, w1) b = Relu(a) c = Conv(b, w2) d = Relu(c) y = Conv(d, w3) }");
  const Outcome out = prune(model, {{"target", std::string("latency")}, {"reduce", 0.4}, {"repair", std::string("none")}}, noise(DType::F32, {4, 3, 16, 16}, 7));
  EXPECT_THAT(out.notes(), testing::HasSubstr("a run on this machine, in turns: "));
  for (NodeId id : out.model.graph->order())  // in steps of what kernels take at once
    if (const Node& n = out.model.graph->node(id); n.is("Conv")) {
      EXPECT_THAT(out.model.graph->constant(n.input(1))->dim(0), testing::AnyOf(2, 16, 32, 48, 64));
    }
}
TEST(PruneChannels, KeptNodesAndCountsInMultiples) {
  Model model = graph_of("g (float[N,3,6,6] x, float[32,3,3,3] w1, float[32,32,1,1] w2, float[2,32,1,1] w3) => (float[N,2,4,4] y) { a = Conv(x, w1) b = Relu(a) c = Conv(b, w2) y = Conv(c, w3) }");
  const Outcome out = prune(model, {{"reduce", 0.4}}, noise(DType::F32, {8, 3, 6, 6}, 7));
  std::vector<int64_t> counts;
  for (NodeId id : out.model.graph->order())
    if (const Node& n = out.model.graph->node(id); n.is("Conv")) counts.push_back(out.model.graph->constant(n.input(1))->dim(0));
  // Multiples of four; of two groups of 32, kernels that take 16 at once feel it only where one falls to 16.
  EXPECT_EQ(counts[0] % 4 + counts[1] % 4, 0);
  EXPECT_LE(std::min(counts[0], counts[1]), 16);
  EXPECT_LE(27 * counts[0] + counts[0] * counts[1] + 2 * counts[1], 6 * (27 * 32 + 32 * 32 + 2 * 32) / 10);
  // What isn't needed is given back: four channels more of either would miss the target.
  EXPECT_GT(27 * (counts[0] + 4) + (counts[0] + 4) * counts[1] + 2 * counts[1], 6 * (27 * 32 + 32 * 32 + 2 * 32) / 10);
  EXPECT_EQ(multiple_for(64, 8), 8);
  EXPECT_EQ(multiple_for(16, 8), 4);
  EXPECT_EQ(multiple_for(30, 8), 2);
  EXPECT_EQ(multiple_for(7, 8), 1);
}

TEST(PruneChannels, RidgeIsNumPysLeastSquares) {
  // numpy: x = np.array([[1,2],[3,-1],[0,2],[-2,1],[1,1],[2,0]]); y = x @ np.array([[2],[-3]]) + 0.5 → exact; a fit without damping gives it back.
  const Model model = graph_of("g (float[N,2] x, float[2,1] w1, float[1] wb) => (float[N,1] y) { y = Gemm(x, w1, wb) }");
  const Layer layer = *layer_of(*model.graph, model.graph->order()[0]);
  const Tensor x = Tensor::of<float>({6, 2}, {1, 2, 3, -1, 0, 2, -2, 1, 1, 1, 2, 0});
  std::vector<float> y;
  for (int64_t i = 0; i < 6; ++i) y.push_back(2 * x.data<float>()[2 * i] - 3 * x.data<float>()[2 * i + 1] + 0.5f);
  RidgeFit fit(model.graph->node(layer.node), {2, 1}, layer, true, 2);
  for (int64_t s : {0, 1}) fit.add(s, x, {Tensor::vector(y).reshaped({6, 1}), {}, {}, {}}, nullptr, 1);
  std::vector<float> w{0, 0};
  std::vector<double> b{0};
  ASSERT_TRUE(fit.solve(w, b, 1));
  EXPECT_THAT((std::vector<float>{w[0], w[1], static_cast<float>(b[0])}), testing::Pointwise(testing::FloatNear(0.02f), std::vector<float>{2, -3, 0.5f}));
}

}  // namespace
}  // namespace infopt::test
