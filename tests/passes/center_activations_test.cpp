#include "calibration/calibration.h"
#include "tests/passes/graph_helper.h"
#include "tests/passes/one_sample.h"

namespace infopt::test {
namespace {

struct Centered {
  Model model;
  std::vector<std::string> notes;
  Centered(const Model& before, const Tensor& x, const Settings& settings = {}) : model(copy_of(before)) {
    Options options;
    for (const OptionDef& o : find_pass("center_activations")->options) options.set(o.name, o.otherwise);
    for (const auto& [name, value] : settings) options.set(name, value);
    Calibration calibration(std::make_shared<OneSample>(x), {});
    Report report;
    static const std::vector<GroupRule> kNoGroups;
    run_pipeline(model, {{"center_activations", options}}, {.profile = find_profile("ort-cpu"), .groups = kNoGroups, .calibration = &calibration}, report);
    notes = report.passes.at(0).edits.notes;
  }
};

Model with(const std::string& text, const std::string& name, const Tensor& value) {
  Model model = graph_of(text);
  GraphEdit edit(*model.graph);
  edit.set_constant(model.graph->find_value(name), value);
  return model;
}

const std::string kConvolutions = "g (float[N,3,8,8] x, float[4,3,1,1] w1, float[4] wb, float[5,4,1,1] w2) => (float[N,5,M,M] y) { a = Conv(x, w1, wb) r = Relu(a) y = Conv";
const Tensor kBias = Tensor::of<float>({4}, {60, 0, -60, 70});

TEST(CenterActivations, WhatAReluNeverCutsGoesIntoTheNextBias) {
  const Model before = with(kConvolutions + "(r, w2) }", "wb", kBias);
  const Tensor x = noise(DType::F32, {2, 3, 8, 8}, 5);
  const Centered after(before, x);
  EXPECT_EQ(ops(after.model), "Conv Relu Conv");
  ASSERT_EQ(after.notes.size(), 1u);
  EXPECT_LE(difference(before, after.model), kRounding);

  // mean − 6 standard deviations of the first and the last channel; the second's and third's are below 0.
  const Tensor a = [&] {
    SessionOptions options;
    options.fetches = {node_of(before, "Conv").outputs[0]};
    return Session(*before.graph, options).run(std::map<std::string, Tensor>{{"x", x}})[0];
  }();
  const auto bias = to_vector<double>(constant_of(after.model, "Conv", 2));
  for (size_t c : {0u, 1u, 2u, 3u}) {
    double sum = 0, square = 0;
    for (size_t n = 0; n < 2; ++n)
      for (size_t i = 0; i < 64; ++i) {
        const auto v = static_cast<double>(a.data<float>()[(n * 4 + c) * 64 + i]);
        sum += v, square += v * v;
      }
    const double mean = sum / 128, spread = std::sqrt(square / 128 - mean * mean);
    EXPECT_NEAR(bias[c], to_vector<double>(kBias)[c] - std::max(0.0, mean - 6 * spread), 1e-3) << c;
  }
}

TEST(CenterActivations, PadsWouldMeetAnotherZero) {
  const Model before = with(kConvolutions + " <pads = [1, 1, 1, 1]> (r, w2) }", "wb", kBias);
  EXPECT_TRUE(Centered(before, noise(DType::F32, {2, 3, 8, 8}, 5)).notes.empty());
}

TEST(CenterActivations, AnyMakerAndReaderKeepsTheFunction) {
  const Tensor offsets = Tensor::of<float>({8}, {30, -25, 1, 0, 2, 0, -1, 40});
  for (const std::string body : {"n = LayerNormalization(x, wg, wb) p = MatMul(n, w1) y = Add(p, wc) }", "n = LayerNormalization(x, wg, wb) y = Gemm(n, w1) }",
                                 "t = Tanh(x) n = Add(wb, t) y = Gemm <beta = 0.5> (n, w1, wc) }", "n = Gemm(x, w2, wb) y = Gemm <transB = 1> (n, w3, wc) }"}) {
    SCOPED_TRACE(body);
    const Model before = with("g (float[N,8] x, float[8] wg, float[8] wb, float[8,6] w1, float[8,8] w2, float[6,8] w3, float[6] wc) => (float[N,6] y) { " + body, "wb", offsets);
    const Centered after(before, noise(DType::F32, {64, 8}, 5));
    EXPECT_EQ(ops(after.model), ops(before));
    EXPECT_EQ(after.notes.size(), 1u);
    EXPECT_LE(difference(before, after.model), kRounding);
  }
}

TEST(CenterActivations, WhatOthersReadIsShiftedByAnAdditionAtMost) {
  const Model before = with("g (float[N,8] x, float[8] wg, float[8] wb, float[8,6] w1, float[6] wc) => (float[N,O] y) { n = LayerNormalization(x, wg, wb) p = Gemm(n, w1, wc) y = Concat <axis = 1> (n, p) }", "wb",
                            Tensor::of<float>({8}, {30, -25, 1, 0, 2, 0, -1, 40}));
  const Tensor x = noise(DType::F32, {64, 8}, 5);
  EXPECT_TRUE(Centered(before, x).notes.empty());
  const Centered after(before, x, {{"insert", true}});
  EXPECT_EQ(ops(after.model), "LayerNormalization Add Gemm Concat");
  EXPECT_LE(difference(before, after.model), kRounding);
}

TEST(CenterActivations, EvenChannelsStay) {
  const Model before = with("g (float[N,8] x, float[8] wb, float[8,6] w1) => (float[N,6] y) { n = Add(x, wb) y = Gemm(n, w1) }", "wb", Tensor::zeros(DType::F32, {8}));
  EXPECT_TRUE(Centered(before, noise(DType::F32, {1024, 8}, 5)).notes.empty());
}

}  // namespace
}  // namespace infopt::test
