#include <gmock/gmock.h>

#include <cmath>

#include "calibration/calibration.h"
#include "lib/onnx/check.h"
#include "lib/onnx/export.h"
#include "lib/runtime/session.h"
#include "passes/pipeline.h"
#include "tests/passes/one_sample.h"
#include "tests/support/model_text.h"

namespace infopt {
namespace {

using test::model_of;
using test::OneSample;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

struct Settings {
  std::string type = "float16";
  bool keep_io = true;
  std::vector<GroupRule> groups = {};
  Calibration* calibration = nullptr;
};

PassReport convert(Model& model, const Settings& settings = {}) {
  PipelineStep step{"convert_float16", {}};
  step.options.set("type", settings.type);
  step.options.set("keep_io", settings.keep_io);
  Report report;
  run_pipeline(model, {step}, {.profile = find_profile("generic"), .groups = settings.groups, .calibration = settings.calibration}, report);
  return report.passes.at(0);
}

/// Numbers in [-1, 1) that repeat for no small period.
Tensor waves(Shape shape, float scale = 1) {
  Tensor t(DType::F32, std::move(shape));
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = scale * std::sin(0.7f * static_cast<float>(i * i % 977));
  return t;
}

double sqnr_db(const Tensor& expected, const Tensor& actual) {
  const auto a = to_vector<double>(expected), b = to_vector<double>(actual);
  EXPECT_EQ(a.size(), b.size());
  double signal = 0, noise = 1e-300;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) signal += a[i] * a[i], noise += (a[i] - b[i]) * (a[i] - b[i]);
  return 10 * std::log10(signal / noise);
}

std::vector<std::string> ops_of(const Graph& graph) {
  std::vector<std::string> ops;
  for (NodeId id : graph.order()) ops.push_back(graph.node(id).op);
  return ops;
}

Tensor run(const Model& model, std::map<std::string, Tensor> inputs) { return Session(*model.graph).run(inputs).at(0); }

DType output_type(const Model& model) { return model.graph->value(model.graph->outputs().at(0)).type.dtype; }

/// Whether ONNX's full check, with strict type inference, takes the model.
void expect_valid(const Model& model) {
  test::TempDir dir;
  write_model(model, dir / "m.onnx");
  EXPECT_NO_THROW(check_model_file(dir / "m.onnx"));
}

/// A product of 8 × 48 weights, a Relu and another product.
Model two_products(const std::string& between = "h = Relu(a)") {
  Model model = model_of(
      "g (float[1,8] x) => (float[1,4] y) <float[1] w1 = {0}, float[1] w2 = {0}, float big = {100000}, float many = {1}> { a = MatMul(x, "
      "w1)\n " +
      between + "\n y = MatMul(h, w2) }");
  GraphEdit edit(*model.graph);
  for (const auto& [name, shape] : std::map<std::string, Shape>{{"w1", {8, 48}}, {"w2", {48, 4}}})
    edit.set_constant(model.graph->find_value(name), waves(shape));
  return model;
}

TEST(ConvertFloat16, KeepsInterfaceTypesBetweenTwoCasts) {
  Model model = two_products();
  const Tensor x = waves({1, 8}), before = run(model, {{"x", x}});
  convert(model);
  EXPECT_THAT(ops_of(*model.graph), testing::ElementsAre("Cast", "MatMul", "Relu", "MatMul", "Cast"));
  EXPECT_EQ(model.graph->value(model.graph->inputs()[0]).type.dtype, DType::F32);
  EXPECT_EQ(output_type(model), DType::F32);
  EXPECT_EQ(model.graph->constant(model.graph->find_value("w1"))->dtype(), DType::F16);
  const Tensor after = run(model, {{"x", x}});
  EXPECT_EQ(after.dtype(), DType::F32);
  EXPECT_GT(sqnr_db(before, after), 50);
  expect_valid(model);
}

TEST(ConvertFloat16, ChangesInterfaceTypesWhereAsked) {
  for (const std::string type : {"float16", "bfloat16"}) {
    Model model = two_products();
    const Tensor x = waves({1, 8}), before = run(model, {{"x", x}});
    convert(model, {.type = type, .keep_io = false});
    const DType dtype = dtype_from_name(type);
    EXPECT_EQ(model.graph->value(model.graph->inputs()[0]).type.dtype, dtype);
    EXPECT_EQ(output_type(model), dtype);
    EXPECT_THAT(ops_of(*model.graph), testing::Not(Contains("Cast")));
    EXPECT_GT(sqnr_db(before, run(model, {{"x", cast(x, dtype)}})), type == "float16" ? 50 : 35);
    expect_valid(model);
  }
}

TEST(ConvertFloat16, KeepsWhatConstantsOverflow) {
  Model model = two_products("b = Mul(a, big)\n h = Relu(b)");
  const PassReport report = convert(model);
  EXPECT_THAT(report.edits.notes, Contains(AllOf(HasSubstr("stays in float32"), HasSubstr("big"), HasSubstr("float16's range"))));
  EXPECT_EQ(model.graph->constant(model.graph->find_value("big"))->dtype(), DType::F32);
  expect_valid(model);
}

TEST(ConvertFloat16, MasksWithTheLeastFloatSurvive) {
  Model model = model_of(
      "g (float[1,4] s, bool[1,4] m) => (float[1,4] y) <float low = {-3.4028234663852886e38}, float zero = {0}> { b = Where(m, zero, "
      "low)\n a = Add(s, b)\n y = Softmax(a) }");
  const Tensor s = waves({1, 4});
  const bool all_masked[4] = {false, false, false, false};
  convert(model);
  // All masked alike, none has more weight: with infinities these were NaN.
  const Tensor y = run(model, {{"s", s}, {"m", Tensor::of({1, 4}, std::span<const bool>(all_masked))}});
  EXPECT_THAT(to_vector<double>(y), testing::Each(testing::DoubleNear(0.25, 1e-3)));
}

TEST(ConvertFloat16, KeepsMeansOfSquares) {
  Model model = model_of(
      "g (float[2,64] x) => (float[2,64] y) <float two = {2}, float eps = {1e-12}> { m = ReduceMean<axes = [-1]>(x)\n d = Sub(x, m)\n p = "
      "Pow(d, two)\n"
      " v = ReduceMean<axes = [-1]>(p)\n e = Add(v, eps)\n r = Sqrt(e)\n y = Div(d, r) }");
  const Tensor x = waves({2, 64}, 400);  // whose squares are beyond float16
  const Tensor before = run(model, {{"x", x}});
  const PassReport report = convert(model);
  for (const char* op : {"Pow", "Add", "Sqrt", "Div"}) EXPECT_THAT(report.edits.notes, Contains(HasSubstr(op)));
  EXPECT_GT(sqnr_db(before, run(model, {{"x", x}})), 45);
  expect_valid(model);
}

TEST(ConvertFloat16, KeepsPositionsExact) {
  Model model = model_of("g (int64[1,1] i) => (float[1,1] y) <float step = {0.5}> { f = Cast<to = 1>(i)\n a = Mul(f, step)\n y = Sin(a) }");
  const Tensor i = Tensor::of<int64_t>({1, 1}, {4097}), before = run(model, {{"i", i}});
  convert(model);
  EXPECT_EQ(to_scalar<double>(run(model, {{"i", i}})), to_scalar<double>(before));
}

TEST(ConvertFloat16, KeepsWhatComesNearTheRangeInCalibrationData) {
  Model model = two_products("b = Mul(a, many)\n h = Div(b, many)");
  {
    GraphEdit edit(*model.graph);
    edit.set_constant(model.graph->find_value("many"), Tensor::scalar(30000.0f));
  }
  Calibration calibration(std::make_shared<OneSample>(waves({1, 8})), {});
  const Tensor x = waves({1, 8}), before = run(model, {{"x", x}});
  const PassReport report = convert(model, {.calibration = &calibration});
  EXPECT_THAT(report.edits.notes, Contains(HasSubstr("comes close to float16's largest number")));
  EXPECT_GT(sqnr_db(before, run(model, {{"x", x}})), 50);
}

TEST(ConvertFloat16, StoresWeightsOfGroupsWithFloatActivations) {
  Model model = two_products();
  const Tensor x = waves({1, 8}), before = run(model, {{"x", x}});
  convert(model, {.groups = {{.name = "first", .nodes = {"w1"}, .weights = "float16", .activations = "int8"}}});
  EXPECT_THAT(ops_of(*model.graph), testing::UnorderedElementsAre("Cast", "MatMul", "Relu", "MatMul"));
  EXPECT_EQ(model.graph->constant(model.graph->find_value("w1"))->dtype(), DType::F16);
  EXPECT_EQ(model.graph->constant(model.graph->find_value("w2"))->dtype(), DType::F32);
  EXPECT_GT(sqnr_db(before, run(model, {{"x", x}})), 55);
  expect_valid(model);
}

TEST(ConvertFloat16, ComputesGroupsInTheirTypes) {
  Model model = two_products();
  const Tensor x = waves({1, 8}), before = run(model, {{"x", x}});
  convert(model, {.groups = {{.name = "first", .nodes = {"w1"}, .activations = "float16"},
                             {.name = "second", .nodes = {"w2"}, .activations = "bfloat16"}}});
  EXPECT_THAT(ops_of(*model.graph), testing::ElementsAre("Cast", "MatMul", "Cast", "Relu", "Cast", "MatMul", "Cast"));
  EXPECT_EQ(model.graph->constant(model.graph->find_value("w2"))->dtype(), DType::BF16);
  EXPECT_GT(sqnr_db(before, run(model, {{"x", x}})), 35);
  expect_valid(model);
}

TEST(ConvertFloat16, LeavesQuantizedPartsAlone) {
  Model model = model_of(
      "g (float[1,8] x) => (float[1,8] y) <float s = {0.02}, uint8 z = {128}> { q = QuantizeLinear(x, s, z)\n d = DequantizeLinear(q, s, "
      "z)\n r = Relu(d)\n"
      " q2 = QuantizeLinear(r, s, z)\n y = DequantizeLinear(q2, s, z) }");
  convert(model);
  EXPECT_THAT(ops_of(*model.graph), testing::Not(Contains("Cast")));
}

TEST(ConvertFloat16, BodiesReadFloat32) {
  Model model = two_products(
      "c = Relu(a)\n t = Constant<value = bool {1}>()\n h = If<then_branch = t1 () => (float[1,48] u) { u = Neg(c) }, else_branch = t2 () "
      "=> (float[1,48] v) { v = Abs(c) }>(t)");
  const Tensor x = waves({1, 8}), before = run(model, {{"x", x}});
  convert(model);
  EXPECT_GT(sqnr_db(before, run(model, {{"x", x}})), 50);
  expect_valid(model);
}

TEST(ConvertFloat16, WhatABodyReadsIsStoredOnce) {
  Model model = model_of(R"(g (float[4,32] x, float[32,32] w) => (float[4,32] y) {
    n = Constant <value = int64 {2}> () go = Constant <value = bool {1}> () a = MatMul(x, w)
    y = Loop(n, go, a) <body = b (int64 i, bool c, float[4,32] s) => (bool d, float[4,32] t) { d = Identity(c) u = MatMul(s, w) t = Tanh(u) }> })",
                         17);
  {
    GraphEdit edit(*model.graph);
    const ValueId w = model.graph->find_value("w");
    edit.remove_input(w);
    edit.set_constant(w, waves({32, 32}, 0.2f));
  }
  const Tensor x = waves({4, 32});
  const Tensor before = run(model, {{"x", x}});
  convert(model);
  model = parse_model(serialize_model(model));
  int64_t bytes = 0;
  for (size_t v = 0; v < model.graph->value_capacity(); ++v)
    if (const auto id = static_cast<ValueId>(v); model.graph->value_alive(id) && model.graph->constant(id) && model.graph->constant(id)->rank() == 2 && !model.graph->value(id).uses.empty()) bytes += static_cast<int64_t>(model.graph->constant(id)->bytes());
  EXPECT_EQ(bytes, 2 * 32 * 32);
  EXPECT_GT(sqnr_db(before, run(model, {{"x", x}})), 50);
}

TEST(ConvertFloat16, ATransposeOfTheFirstAxisBeforeAProductStaysInFloat) {
  Model model = model_of("g (float[3,2,64] x, float[64,8] w) => (float[2,3,8] y) { a = Relu(x) t = Transpose<perm=[1,0,2]>(a) y = MatMul(t, w) }", 17);
  convert(model);
  EXPECT_EQ(ops_of(*model.graph), (std::vector<std::string>{"Cast", "Relu", "Cast", "Transpose", "Cast", "Cast", "MatMul", "Cast"}));
}

TEST(ConvertFloat16, WeightsStoredInFloat16NeedNoCastAnyMore) {
  Model model = two_products();
  {
    GraphEdit edit(*model.graph);
    const ValueId w1 = model.graph->find_value("w1");
    const NodeId product = model.graph->value(w1).uses[0].node;
    const ValueId half = edit.add_constant(cast(*model.graph->constant(w1), DType::F16), "half");
    edit.set_input(product, 1, edit.add({.op = "Cast", .attributes = {{"to", static_cast<int64_t>(DType::F32), {}}}}, {half}));
  }
  convert(model);
  EXPECT_THAT(ops_of(*model.graph), testing::ElementsAre("Cast", "MatMul", "Relu", "MatMul", "Cast"));
  expect_valid(model);
}

TEST(ConvertFloat16, ConvolutionsThatHaveNoBfloat16StoreIt) {
  // Conv takes bfloat16 from opset 22 on.
  Model model = model_of("g (float[1,16,5,5] x) => (float[1,4,3,3] y) <float[1] w = {0}> { y = Conv(x, w) }");
  {
    GraphEdit edit(*model.graph);
    edit.set_constant(model.graph->find_value("w"), waves({4, 16, 3, 3}));
  }
  const PassReport report = convert(model, {.type = "bfloat16"});
  EXPECT_THAT(report.edits.notes, Contains(HasSubstr("opset 17 has no Conv of bfloat16")));
  EXPECT_THAT(ops_of(*model.graph), testing::ElementsAre("Cast", "Conv"));
  EXPECT_EQ(model.graph->constant(model.graph->find_value("w"))->dtype(), DType::BF16);
  expect_valid(model);
}

TEST(ConvertFloat16, GivesTheSameBytesEveryTime) {
  Model one = two_products(), two = two_products();
  convert(one);
  convert(two);
  EXPECT_EQ(serialize_model(one), serialize_model(two));
}

}  // namespace
}  // namespace infopt
