// Codes and scales are ml_dtypes' (0.6.0): w = np.array([[0.5, -2.54, 1, 0.3], [12.7, 3, -4, 0.001]], np.float32),
// s = (np.abs(w).max(1, keepdims=True) / 448).astype(np.float32), (w / s).astype(ml_dtypes.float8_e4m3fn).view(np.uint8); 57344 for float8_e5m2.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "calibration/calibration.h"
#include "lib/base/error.h"
#include "tests/passes/graph_helper.h"
#include "tests/passes/one_sample.h"

namespace infopt {
namespace {

using testing::HasSubstr;
using namespace test;

const std::vector<float> kWeights{0.5f, -2.54f, 1, 0.3f, 12.7f, 3, -4, 0.001f};

/// y = x·Wᵀ with W of two output channels.
Model product(const std::vector<float>& weights = kWeights) {
  Model model = graph_of("g (float[1,4] x, float[2,4] w) => (float[1,2] y) { y = Gemm<transB=1>(x, w) }");
  GraphEdit edit(*model.graph);
  edit.set_constant(model.graph->find_value("w"), Tensor::of<float>({2, 4}, weights));
  return model;
}

struct Case {
  Settings settings = {};
  std::vector<GroupRule> groups = {};
  std::optional<Tensor> data = {};
};

Report quantize(Model& model, const Case& c) {
  PipelineStep step{"quantize_float8", {}};
  for (const OptionDef& o : find_pass("quantize_float8")->options) step.options.set(o.name, o.otherwise);
  step.options.set("min_weights", int64_t{1});
  for (const auto& [name, value] : c.settings) step.options.set(name, value);
  std::optional<Calibration> calibration;
  if (c.data) calibration.emplace(std::make_shared<OneSample>(*c.data), CalibrationOptions{});
  Report report;
  run_pipeline(model, {step}, {.profile = find_profile("tensorrt"), .groups = c.groups, .calibration = calibration ? &*calibration : nullptr}, report);
  model = parse_model(serialize_model(model));
  return report;
}

GroupRule group(const std::string& weights, const std::string& activations) {
  GroupRule rule;
  rule.name = "all";
  rule.weights = weights;
  rule.activations = activations;
  return rule;
}

std::vector<int> bits(const Tensor& t) {
  std::vector<int> out;
  for (int64_t i = 0; i < t.size(); ++i) out.push_back(static_cast<int>(t.raw()[i]));
  return out;
}

const Case kWeightsOnly{.settings = {{"activations", std::string("none")}}};

TEST(QuantizeFloat8, WeightsAreTheNearestCodesWithAScaleForEachOutputChannel) {
  Model model = product();
  const Report report = quantize(model, kWeightsOnly);
  EXPECT_EQ(ops(model), "DequantizeLinear Gemm");
  EXPECT_EQ(model.graph->opset(""), 19);
  const Tensor& codes = constant_of(model, "DequantizeLinear", 0);
  EXPECT_EQ(codes.dtype(), DType::F8E4M3FN);
  EXPECT_EQ(bits(codes), (std::vector<int>{107, 254, 115, 101, 126, 109, 241, 17}));
  EXPECT_EQ(to_vector<float>(constant_of(model, "DequantizeLinear", 1)), (std::vector<float>{0.0056696427054703236f, 0.02834821306169033f}));
  EXPECT_EQ(node_of(model, "DequantizeLinear").i("axis", 1), 0);
  ASSERT_EQ(report.layers.size(), 1u);
  EXPECT_EQ(report.layers[0].form, LayerForm::WeightOnly);
  EXPECT_EQ(report.layers[0].weights, "float8e4m3fn, per channel");
  EXPECT_GT(report.layers[0].weight_sqnr_db.value_or(0), 28);
}

TEST(QuantizeFloat8, WeightsOfE5M2) {
  Model model = product();
  quantize(model, {.settings = {{"activations", std::string("none")}, {"type", std::string("float8e5m2")}}});
  EXPECT_EQ(constant_of(model, "DequantizeLinear", 0).dtype(), DType::F8E5M2);
  EXPECT_EQ(bits(constant_of(model, "DequantizeLinear", 0)), (std::vector<int>{114, 251, 118, 111, 123, 115, 244, 69}));
}

TEST(QuantizeFloat8, OneScaleForAllChannels) {
  Model model = product();
  quantize(model, {.settings = {{"activations", std::string("none")}, {"per_channel", false}}});
  EXPECT_EQ(bits(constant_of(model, "DequantizeLinear", 0)), (std::vector<int>{89, 235, 97, 83, 126, 109, 241, 17}));
  EXPECT_EQ(constant_of(model, "DequantizeLinear", 1).rank(), 0);
}

TEST(QuantizeFloat8, ActivationsHaveTheirLargestMagnitudeAtTheLargestCodeAndSaturate) {
  Model model = graph_of("g (float[1,4] x, float[4,4] w) => (float[1,4] y) { y = MatMul(x, w) }");
  {
    GraphEdit edit(*model.graph);
    edit.set_constant(model.graph->find_value("w"), Tensor::of<float>({4, 4}, {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}));
  }
  const Report report = quantize(model, {.data = Tensor::of<float>({1, 4}, {1.5f, -3.25f, 0.01f, 2})});
  EXPECT_EQ(report.layers.at(0).form, LayerForm::Float8);
  const Tensor y = Session(*model.graph).run({{"x", Tensor::of<float>({1, 4}, {1.5f, -3.25f, 0.01f, 100})}}).at(0);
  // s = np.float32(3.25 / 448); np.clip(x / s, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * s
  const std::vector<float> expected{1.5089285373687744f, -3.25f, 0.009974888525903225f, 3.25f};
  const auto found = to_vector<float>(y);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-6f * std::fabs(expected[i]));
}

TEST(QuantizeFloat8, AnInputIsQuantizedOnceForAllItsReaders) {
  Model model = graph_of("g (float[1,4] x, float[4,4] w0, float[4,4] w1) => (float[1,4] y) { a = MatMul(x, w0) b = MatMul(x, w1) y = Add(a, b) }");
  quantize(model, {.data = noise(DType::F32, {1, 4}, 3)});
  int quantizers = 0;
  for (NodeId id : model.graph->order()) quantizers += model.graph->node(id).is("QuantizeLinear");
  EXPECT_EQ(quantizers, 1);
}

TEST(QuantizeFloat8, ConvolutionsOfEveryKindStayClose) {
  for (const char* node : {"Conv(x, w)", "Conv<group=2>(x, w2)", "ConvTranspose(x, w)", "ConvTranspose<group=2>(x, w)"}) {
    SCOPED_TRACE(node);
    const Model before = graph_of(std::string("g (float[1,4,6,6] x, float[4,4,3,3] w, float[4,2,3,3] w2) => (float[1,C,H,W] y) { y = ") + node + " }");
    Model after = copy_of(before);
    const Tensor x = noise(DType::F32, {1, 4, 6, 6}, 5);
    quantize(after, {.data = x});
    const auto a = to_vector<double>(Session(*before.graph).run({{"x", x}}).at(0)), b = to_vector<double>(Session(*after.graph).run({{"x", x}}).at(0));
    double signal = 0, error = 0;
    for (size_t i = 0; i < a.size(); ++i) signal += a[i] * a[i], error += (a[i] - b[i]) * (a[i] - b[i]);
    EXPECT_LT(error, signal * 4e-3);  // 24 dB
    EXPECT_GT(error, 0);
  }
}

// In ONNX Runtime 1.32 a Relu or Clip before QuantizeLinear to float8 is taken away, or ends the session, at its default optimizations.
TEST(QuantizeFloat8, ReluAndClipBeforeACodeAreMaxAndMin) {
  const Tensor x = noise(DType::F32, {1, 4}, 3);
  for (const auto& [activation, expected] : std::vector<std::pair<std::string, std::string>>{{"Relu(a)", "Max"}, {"Clip(a, low, high)", "Max Min"}, {"Clip(a, low)", "Max"}}) {
    SCOPED_TRACE(activation);
    const Model before = graph_of("g (float[1,4] x, float[4,4] w0, float[4,4] w1) => (float[1,4] y) <float low = {0}, float high = {6}> { a = MatMul(x, w0) r = " + activation + " y = MatMul(r, w1) }");
    Model after = copy_of(before);
    quantize(after, {.data = x});
    EXPECT_THAT(ops(after), HasSubstr("MatMul " + expected + " QuantizeLinear"));
    const auto a = to_vector<double>(Session(*before.graph).run({{"x", x}}).at(0)), b = to_vector<double>(Session(*after.graph).run({{"x", x}}).at(0));
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 0.5);
  }
}

TEST(QuantizeFloat8, LayersGoBackToFloatWhereTheOutputsHaveTooMuchNoise) {
  const Model net = graph_of("g (float[1,4] x, float[4,4] w0, float[4,4] w1) => (float[1,4] y) { a = MatMul(x, w0) y = MatMul(a, w1) }");
  const Tensor x = noise(DType::F32, {1, 4}, 3);
  Model all = copy_of(net), half = copy_of(net), none = copy_of(net);
  const Report a = quantize(all, {.settings = {{"min_sqnr_db", 150.0}, {"max_fallback", 1.0}}, .data = x});
  EXPECT_EQ(ops(all), "MatMul MatMul");
  EXPECT_THAT(a.layers.at(0).reason, HasSubstr("among those that added most noise"));
  const Report b = quantize(half, {.settings = {{"min_sqnr_db", 150.0}}, .data = x});
  EXPECT_EQ((a.layers.at(0).form == LayerForm::Float32) + (b.layers.at(0).form == LayerForm::Float32) + (b.layers.at(1).form == LayerForm::Float32), 2);
  EXPECT_THAT(b.warnings.at(0), HasSubstr("below quantize_float8.min_sqnr_db"));
  EXPECT_EQ(quantize(none, {.settings = {{"min_sqnr_db", 5.0}}, .data = x}).layers.at(0).form, LayerForm::Float8);
}

// Powers of two are codes of E4M3 where the scale is one over 448: only a, sums of them, is rounded.
TEST(QuantizeFloat8, ActivationsThatCostTooMuchStayInFloatBeforeAnyWeightDoes) {
  Model model = graph_of("g (float[1,4] x, float[4,4] w0, float[4,2] w1) => (float[1,2] y) { a = MatMul(x, w0) y = MatMul(a, w1) }");
  {
    GraphEdit edit(*model.graph);
    edit.set_constant(model.graph->find_value("w0"), Tensor::of<float>({4, 4}, {1, 0.5f, 2, 4, -0.25f, 1, 8, 1, 2, -4, 1, 0.125f, 0.5f, 2, -0.0625f, 1}));
    edit.set_constant(model.graph->find_value("w1"), Tensor::of<float>({4, 2}, {1, 2, -0.5f, 1, 0.25f, 4, 2, -1}));
  }
  Model exact = copy_of(model);
  const Tensor x = Tensor::of<float>({1, 4}, {0.125f, -0.5f, 4, 1});
  const Report report = quantize(model, {.settings = {{"min_sqnr_db", 150.0}}, .data = x});
  EXPECT_EQ(report.layers.at(0).form, LayerForm::Float8);
  EXPECT_EQ(report.layers.at(1).form, LayerForm::WeightOnly);
  EXPECT_EQ(report.layers.at(0).reason, "asked for");
  EXPECT_THAT(report.layers.at(1).reason, HasSubstr("its input in float8 was among those that added most noise"));
  EXPECT_TRUE(report.warnings.empty());
  EXPECT_EQ(ops(model), "QuantizeLinear DequantizeLinear DequantizeLinear MatMul DequantizeLinear MatMul");
  EXPECT_EQ(to_vector<float>(Session(*model.graph).run({{"x", x}}).at(0)), to_vector<float>(Session(*exact.graph).run({{"x", x}}).at(0)));
}

TEST(QuantizeFloat8, TablesThatAreLookedUpInBecomeInt8Rows) {
  const Model net = graph_of("g (int64[3] x, float[8,4] w0) => (float[3,4] y) { y = Gather(w0, x) }");
  const auto table = to_vector<float>(*net.graph->constant(net.graph->find_value("w0")));
  const Tensor x = Tensor::of<int64_t>({3}, {5, 0, 7});
  for (const char* form : {"int8", "float"}) {
    Model model = copy_of(net);
    quantize(model, {.settings = {{"activations", std::string("none")}, {"embeddings", std::string(form)}}});
    EXPECT_EQ(ops(model), form == std::string("int8") ? "Gather Gather Cast Mul" : "Gather");
    const auto y = to_vector<float>(Session(*model.graph).run({{"x", x}}).at(0));
    for (size_t r = 0; r < 3; ++r) {
      const float* row = table.data() + x.data<int64_t>()[r] * 4;
      const float most = std::fabs(*std::max_element(row, row + 4, [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
      for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(y[r * 4 + i], row[i], form == std::string("int8") ? most / 127 : 0.0f);
    }
  }
}

TEST(QuantizeFloat8, GptqLeavesLessErrorThanRoundingToNearest) {
  const Model net = graph_of("g (float[64,24] x, float[24,16] w0) => (float[64,16] y) { y = MatMul(x, w0) }");
  Tensor x = noise(DType::F32, {64, 24}, 7);
  for (int64_t i = 0; i < x.size(); ++i) x.mutable_data<float>()[i] += x.data<float>()[i / 24 * 24];  // inputs that go together
  const auto expected = to_vector<double>(Session(*net.graph).run({{"x", x}}).at(0));
  std::vector<double> errors;
  for (const char* rounding : {"nearest", "gptq"}) {
    Model model = copy_of(net);
    const Report report = quantize(model, {.settings = {{"rounding", std::string(rounding)}, {"activations", std::string("none")}}, .data = x});
    EXPECT_EQ(report.layers.at(0).algorithm, rounding == std::string("gptq") ? "gptq" : "");
    const auto y = to_vector<double>(Session(*model.graph).run({{"x", x}}).at(0));
    double error = 0;
    for (size_t i = 0; i < y.size(); ++i) error += (y[i] - expected[i]) * (y[i] - expected[i]);
    errors.push_back(error);
  }
  EXPECT_LT(errors[1], 0.7 * errors[0]);
}

TEST(QuantizeFloat8, GroupsKeepWhatTheySay) {
  const Tensor x = noise(DType::F32, {1, 4}, 3);
  Model kept = product(), weights = product();
  const Report a = quantize(kept, {.groups = {group("float32", "")}, .data = x});
  EXPECT_EQ(ops(kept), "Gemm");
  EXPECT_EQ(a.layers.at(0).reason, "group all keeps its weights in float32");
  const Report b = quantize(weights, {.groups = {group("float8", "float32")}, .data = x});
  EXPECT_EQ(ops(weights), "DequantizeLinear Gemm");
  EXPECT_EQ(b.layers.at(0).reason, "group all; group all keeps its activations in float32");
}

TEST(QuantizeFloat8, SmallLayersStayInFloat) {
  Model model = product();
  const Report report = quantize(model, {.settings = {{"activations", std::string("none")}, {"min_weights", int64_t{9}}}});
  EXPECT_EQ(ops(model), "Gemm");
  EXPECT_EQ(report.layers.at(0).reason, "too few weights to gain from it");
}

TEST(QuantizeFloat8, ZeroAndTinyChannelsHaveFiniteScales) {
  Model model = product({0, 0, 0, 0, 1e-44f, -1e-44f, 0, 0});
  quantize(model, kWeightsOnly);
  const auto scales = to_vector<float>(constant_of(model, "DequantizeLinear", 1));
  EXPECT_EQ(scales[0], 1);
  EXPECT_GT(scales[1], 0);
  for (int code : bits(constant_of(model, "DequantizeLinear", 0))) EXPECT_EQ(code & 0x7f, 0);
}

TEST(QuantizeFloat8, NanAndInfinityAreErrors) {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Model model = product({1, bad, 1, 1, 1, 1, 1, 1});
    try {
      quantize(model, kWeightsOnly);
      ADD_FAILURE() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Malformed);
      EXPECT_THAT(e.what(), HasSubstr("NaN or an infinity"));
    }
  }
}

TEST(QuantizeFloat8, StaticActivationsNeedData) {
  Model model = product();
  try {
    quantize(model, {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Usage);
  }
}

}  // namespace
}  // namespace infopt
