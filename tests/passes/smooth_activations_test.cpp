#include <gmock/gmock.h>

#include "calibration/calibration.h"
#include "tests/passes/graph_helper.h"
#include "tests/passes/one_sample.h"

namespace infopt::test {
namespace {

struct Smoothed {
  Model model;
  std::vector<std::string> notes;
  Smoothed(const Model& before, const Tensor& x, const Settings& settings) : model(copy_of(before)) {
    Options options;
    for (const OptionDef& o : find_pass("smooth_activations")->options) options.set(o.name, o.otherwise);
    for (const auto& [name, value] : settings) options.set(name, value);
    Calibration calibration(std::make_shared<OneSample>(x), {});
    Report report;
    static const std::vector<GroupRule> kNoGroups;
    run_pipeline(model, {{"smooth_activations", options}}, {.profile = find_profile("ort-cpu"), .groups = kNoGroups, .calibration = &calibration}, report);
    notes = report.passes.at(0).edits.notes;
  }
};

/// A normalization whose gain has two far outliers, and a product.
Model outliers(const std::string& body) {
  Model model = graph_of("g (float[N,8] x, float[8] wg, float[8] wb, float[8,16] w) => (float[N,O] y) " + body);
  GraphEdit edit(*model.graph);
  edit.set_constant(model.graph->find_value("wg"), Tensor::of<float>({8}, {1, 1, 90, 1, 1, -40, 1, 0}));
  return model;
}

const std::string kBehindNormalization = "{ n = LayerNormalization(x, wg, wb) y = MatMul(n, w) }";

TEST(SmoothActivations, OutliersGoFromTheNormalizationIntoTheWeights) {
  const Model before = outliers(kBehindNormalization);
  const Smoothed after(before, noise(DType::F32, {64, 8}, 5), {});
  EXPECT_EQ(ops(after.model), "LayerNormalization MatMul");
  EXPECT_LE(difference(before, after.model), kRounding);
  ASSERT_EQ(after.notes.size(), 1u);
  const auto gain = to_vector<float>(constant_of(after.model, "LayerNormalization", 1));
  EXPECT_LT(std::fabs(gain[2] / gain[0]), 30);
}

TEST(SmoothActivations, AFixedAlphaGivesThePapersFactors) {
  const Model before = outliers("{ n = Mul(x, wg) y = MatMul(n, w) }");
  const Tensor x = Tensor::of<float>({1, 8}, {1, 1, 1, 1, 1, 1, 1, 1});
  const Smoothed after(before, x, {{"alpha", 0.5}});
  const auto w = to_vector<double>(constant_of(before, "MatMul", 1)), g = to_vector<double>(constant_of(after.model, "Mul", 1));
  std::vector<double> s;
  for (size_t k = 0; k < 7; ++k) {
    double most = 0;
    for (size_t n = 0; n < 16; ++n) most = std::max(most, std::fabs(w[k * 16 + n]));
    s.push_back(std::sqrt(std::fabs(std::vector<double>{1, 1, 90, 1, 1, 40, 1}[k]) / most));
  }
  const double least = *std::min_element(s.begin(), s.end());
  const std::vector<double> gain{1, 1, 90, 1, 1, -40, 1};
  for (size_t k = 0; k < 7; ++k) EXPECT_NEAR(g[k], gain[k] / (s[k] / least), 1e-5 * std::fabs(gain[k])) << k;
  EXPECT_EQ(g[7], 0);
  EXPECT_LE(difference(before, after.model), kRounding);
}

TEST(SmoothActivations, LeavesWhereNothingGainsOrOthersRead) {
  Model even = graph_of("g (float[N,8] x, float[8] wb, float[8,16] w) => (float[N,16] y) { n = Relu(x) y = MatMul(n, w) }");
  EXPECT_TRUE(Smoothed(even, noise(DType::F32, {64, 8}, 5), {}).notes.empty());
  const Model shared = outliers("{ n = LayerNormalization(x, wg, wb) p = MatMul(n, w) q = Neg(n) y = Concat <axis = 1> (p, q) }");
  const Tensor x = noise(DType::F32, {64, 8}, 5);
  EXPECT_TRUE(Smoothed(shared, x, {}).notes.empty());
  const Smoothed inserted(shared, x, {{"insert", true}});
  EXPECT_THAT(ops(inserted.model), testing::HasSubstr("Mul"));
  EXPECT_LE(difference(shared, inserted.model), kRounding);
}

}  // namespace
}  // namespace infopt::test
