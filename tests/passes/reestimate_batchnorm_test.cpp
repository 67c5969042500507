#include "passes/support/reestimate_batchnorm.h"

#include <gmock/gmock.h>

#include "calibration/calibration.h"
#include "tests/passes/graph_helper.h"
#include "tests/passes/one_sample.h"

namespace infopt::test {
namespace {

std::vector<bool> keep_all(ValueId, int64_t) { return {}; }

int64_t reestimate(Model& model, const Graph& original, const Tensor& x) {
  Calibration calibration(std::make_shared<OneSample>(x), {});
  static const std::vector<GroupRule> kNoGroups;
  Report report;
  PassReport own;
  PassContext context{.model = model, .profile = find_profile("ort-cpu"), .groups = kNoGroups, .calibration = &calibration, .report = report, .pass_report = own};
  GraphEdit edit(*model.graph);
  const int64_t n = reestimate_batchnorm(edit, original, keep_all, context);
  edit.finish();
  return n;
}

/// Weights times `by`.
void scale_weights(Model& model, const std::string& name, float by) {
  GraphEdit edit(*model.graph);
  const ValueId w = model.graph->find_value(name);
  Tensor t = model.graph->value(w).constant.clone();
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] *= by;
  edit.set_constant(w, t);
  edit.finish();
}

// x' = 2x: Var[x'] / Var[x] = 4, E[x'] = 2E[x], so v' + ε = 4(v + ε) and m' = 2m whatever the data is.
TEST(ReestimateBatchnorm, ADoubledInputDoublesTheMeanAndQuadruplesTheVariance) {
  const Model model = graph_of(R"(g (float[N,3,6,6] x, float[4,3,1,1] w1, float[4] ws, float[4] wb, float[4] wm, float[4] vv, float[2,4,1,1] w2) => (float[N,2,6,6] y) {
    a = Conv(x, w1) b = BatchNormalization<epsilon: float = 0.001>(a, ws, wb, wm, vv) r = Relu(b) y = Conv(r, w2) })");
  Model changed = copy_of(model);
  scale_weights(changed, "w1", 2);
  EXPECT_EQ(reestimate(changed, *model.graph, noise(DType::F32, {4, 3, 6, 6}, 5)), 1);
  const Tensor &m = constant_of(model, "BatchNormalization", 3), &v = constant_of(model, "BatchNormalization", 4);
  for (int64_t c = 0; c < 4; ++c) {
    EXPECT_NEAR(constant_of(changed, "BatchNormalization", 3).data<float>()[c], 2 * m.data<float>()[c], 1e-4);
    EXPECT_NEAR(constant_of(changed, "BatchNormalization", 4).data<float>()[c], 4 * (v.data<float>()[c] + 0.001f) - 0.001f, 1e-3);
  }
  const Tensor other = noise(DType::F32, {2, 3, 6, 6}, 9);
  const auto a = to_vector<float>(Session(*model.graph).run(std::map<std::string, Tensor>{{"x", other}})[0]), b = to_vector<float>(Session(*changed.graph).run(std::map<std::string, Tensor>{{"x", other}})[0]);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-3);
}

TEST(ReestimateBatchnorm, OneBehindAnotherSeesItPutRight) {
  const Model model = graph_of(R"(g (float[N,3,5,5] x, float[4,3,1,1] w1, float[4] ws, float[4] wb, float[4] wm, float[4] vv, float[2] ws2, float[2] wb2, float[2] wm2, float[2] vv2, float[2,4,1,1] w2) => (float[N,2,5,5] y) {
    a = Conv(x, w1) b = BatchNormalization(a, ws, wb, wm, vv) r = Relu(b) c = Conv(r, w2) y = BatchNormalization(c, ws2, wb2, wm2, vv2) })");
  Model changed = copy_of(model);
  scale_weights(changed, "w1", 3);
  EXPECT_EQ(reestimate(changed, *model.graph, noise(DType::F32, {4, 3, 5, 5}, 5)), 2);
  const ValueId second = model.graph->node(model.graph->order()[4]).input(4), now = changed.graph->node(changed.graph->order()[4]).input(4);
  const auto was = to_vector<float>(*model.graph->constant(second)), is = to_vector<float>(*changed.graph->constant(now));
  for (size_t i = 0; i < was.size(); ++i) EXPECT_NEAR(is[i], was[i], 1e-3 * was[i]);  // the first one made up for all
}

TEST(ReestimateBatchnorm, WhereNothingBeforeHasChangedNothingIsDone) {
  const Model model = graph_of("g (float[N,3,5,5] x, float[3] ws, float[3] wb, float[3] wm, float[3] vv, float[4,3,1,1] w2) => (float[N,4,5,5] y) { b = BatchNormalization(x, ws, wb, wm, vv) y = Conv(b, w2) }");
  Model changed = copy_of(model);
  scale_weights(changed, "w2", 3);
  EXPECT_EQ(reestimate(changed, *model.graph, noise(DType::F32, {4, 3, 5, 5}, 5)), 0);
}

}  // namespace
}  // namespace infopt::test
