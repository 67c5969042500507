#include "passes/support/recurrent_weights.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "calibration/calibration.h"
#include "tests/passes/graph_helper.h"
#include "tests/passes/one_sample.h"

namespace infopt::test {
namespace {

const char kGru[] = R"(g (float[5,1,24] x, float[2,48,24] wi, float[2,48,16] wr) => (float[5,2,1,16] y) {
  y = GRU<hidden_size=16, direction="bidirectional", linear_before_reset=1>(x, wi, wr) })";

/// As bidirectional as torch's; weights of the size that training leaves.
Model gru() {
  Model m = graph_of(kGru);
  GraphEdit edit(*m.graph);
  for (const char* name : {"wi", "wr"}) {
    const ValueId w = m.graph->find_value(name);
    Tensor t = m.graph->constant(w)->clone();
    for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] *= 0.2f;
    edit.set_constant(w, t);
  }
  return m;
}

/// Inputs whose last axis is a mixture of a few sources, as real ones are.
Tensor mixture(const Shape& shape, unsigned seed) {
  const int64_t k = shape.back(), sources = k / 4;
  const Tensor mix = noise(DType::F32, {sources, k}, 1), z = noise(DType::F32, {element_count(shape) / k, sources}, seed);
  Tensor x = Tensor::zeros(DType::F32, shape);
  for (int64_t r = 0; r < x.size() / k; ++r)
    for (int64_t s = 0; s < sources; ++s)
      for (int64_t i = 0; i < k; ++i) x.mutable_data<float>()[r * k + i] += 0.4f * z.data<float>()[r * sources + s] * mix.data<float>()[s * k + i];
  return x;
}

Model quantized(const Model& model, const std::string& pass, const Settings& settings, bool data = true, Report* told = nullptr) {
  Model out = copy_of(model);
  PipelineStep step{pass, {}};
  for (const OptionDef& o : find_pass(pass)->options) step.options.set(o.name, o.otherwise);
  for (const auto& [name, value] : settings) step.options.set(name, value);
  std::vector<Tensor> samples;
  for (unsigned s = 0; s < 32; ++s) samples.push_back(mixture(model.graph->value(model.graph->inputs()[0]).type.fixed_shape().value(), 50 + s));
  Calibration calibration(std::make_shared<HeldSamples>(samples), CalibrationOptions{});
  Report report;
  static const std::vector<GroupRule> kNoGroups;
  run_pipeline(out, {step}, {.profile = find_profile("ort-cpu"), .groups = kNoGroups, .calibration = data ? &calibration : nullptr}, report);
  if (told) *told = report;
  return parse_model(serialize_model(out));
}

double sqnr(const Model& a, const Model& b) {
  double signal = 0, noise = 0;
  for (unsigned seed : {7u, 8u, 9u}) {
    const std::map<std::string, Tensor> inputs{{"x", mixture(a.graph->value(a.graph->inputs()[0]).type.fixed_shape().value(), seed)}};
    const auto x = to_vector<double>(Session(*a.graph).run(inputs)[0]), y = to_vector<double>(Session(*b.graph).run(inputs)[0]);
    for (size_t i = 0; i < x.size(); ++i) signal += x[i] * x[i], noise += (x[i] - y[i]) * (x[i] - y[i]);
  }
  return 10 * std::log10(signal / noise);
}

const Tensor& codes_behind(const Model& m, size_t input) { return *m.graph->constant(m.graph->producer(node_of(m, "GRU").input(input))->input(0)); }

TEST(RecurrentWeights, OfAGruAreStoredInBlocksOfCodes) {
  const Model before = gru(), now = quantized(before, "quantize_weights", {{"type", std::string("uint4")}, {"symmetric", false}, {"block_size", int64_t{16}}, {"min_sqnr_db", 15.0}});
  EXPECT_EQ(ops(now), "DequantizeLinear DequantizeLinear GRU");
  EXPECT_EQ(now.graph->opset(""), 21);
  EXPECT_EQ(codes_behind(now, 1).dtype(), DType::U4);
  EXPECT_EQ(codes_behind(now, 1).shape(), (Shape{2, 48, 24}));
  const Node& d = *now.graph->producer(node_of(now, "GRU").input(1));
  EXPECT_EQ(d.i("axis", 1), 2);
  EXPECT_EQ(d.i("block_size", 0), 16);
  EXPECT_EQ(now.graph->constant(d.input(1))->shape(), (Shape{2, 48, 2}));
  EXPECT_EQ(now.graph->constant(now.graph->producer(node_of(now, "GRU").input(2))->input(1))->shape(), (Shape{48}));  // a block would be the row
  EXPECT_GT(sqnr(before, now), 15);
}

TEST(RecurrentWeights, RoundedWithTheirInputsInViewAreCloser) {
  const Model before = gru();
  const Settings four{{"type", std::string("int4")}, {"block_size", int64_t{16}}, {"min_sqnr_db", -100.0}};
  Settings nearest = four;
  nearest.emplace_back("algorithm", std::string("nearest"));
  EXPECT_GT(sqnr(before, quantized(before, "quantize_weights", four)), sqnr(before, quantized(before, "quantize_weights", nearest)) + 2);
}

TEST(RecurrentWeights, GetEightBitsWhereFourCostTooMuchAndFloatWhereTheseDo) {
  const Model before = gru();
  const Model eight = quantized(before, "quantize_weights", {{"min_sqnr_db", 36.0}});
  EXPECT_EQ(ops(eight), "DequantizeLinear DequantizeLinear GRU");
  EXPECT_EQ(codes_behind(eight, 2).dtype(), DType::I8);
  EXPECT_GT(sqnr(before, eight), 33);
  EXPECT_EQ(ops(quantized(before, "quantize_weights", {{"min_sqnr_db", 190.0}})), "GRU");
}

TEST(RecurrentWeights, NeedNoData) {
  const Model before = gru();
  EXPECT_EQ(ops(quantized(before, "quantize_weights", {{"algorithm", std::string("nearest")}}, false)), "DequantizeLinear DequantizeLinear GRU");
  const Model eight = quantized(before, "quantize_float8", {{"activations", std::string("none")}}, false);
  EXPECT_EQ(ops(eight), "DequantizeLinear DequantizeLinear GRU");
  EXPECT_EQ(codes_behind(eight, 1).dtype(), DType::F8E4M3FN);
  EXPECT_EQ(eight.graph->opset(""), 19);
  EXPECT_GT(sqnr(before, eight), 20);
}

TEST(RecurrentWeights, AreJudgedBesideTheFloatOutputsInFloat8) {
  const Model before = gru();
  Report report;
  const Model now = quantized(before, "quantize_float8", {{"min_sqnr_db", 44.0}}, true, &report);
  EXPECT_EQ(codes_behind(now, 1).dtype(), DType::I8);
  EXPECT_THAT(report.warnings, testing::IsEmpty());
}

TEST(RecurrentWeights, OfALoopAreSharedWithTheLayerThatMultipliesByThem) {
  const Model before = graph_of(R"(g (float[4,32] x, float[32,32] wk) => (float[4,32] y) {
    n = Constant <value = int64 {2}> () go = Constant <value = bool {1}> () e = MatMul(x, wk) f = Constant <value = float {0.05}> () a = Mul(e, f)
    y = Loop(n, go, a) <body = b (int64 i, bool c, float[4,32] s) => (bool d, float[4,32] t) { d = Identity(c) u = MatMul(s, wk) t = Sigmoid(u) }> })");
  const Model now = quantized(before, "quantize_weights", {});
  for (NodeId id : now.graph->order())
    for (ValueId c : now.graph->node(id).captures) {
      EXPECT_EQ(now.graph->constant(c), nullptr);
      ASSERT_NE(now.graph->producer(c), nullptr);
      EXPECT_EQ(now.graph->producer(c)->op, "DequantizeLinear");
    }
  EXPECT_GT(sqnr(before, now), 10);
}

TEST(RecurrentWeights, OfALoopServeAnIntegerLayerToo) {
  const Model before = graph_of(R"(g (float[4,32] x, float[32,32] wk) => (float[4,32] y) {
    n = Constant <value = int64 {2}> () go = Constant <value = bool {1}> () a = MatMul(x, wk)
    y = Loop(n, go, a) <body = b (int64 i, bool c, float[4,32] s) => (bool d, float[4,32] t) { d = Identity(c) u = MatMul(s, wk) t = Sigmoid(u) }> })");
  for (const char* type : {"int8", "int4"}) {
    const Model now = quantized(before, "quantize_int8", {{"activations", std::string("static")}, {"weight_type", std::string(type)}, {"min_sqnr_db", -100.0}});
    int64_t bytes = 0;
    for (size_t v = 0; v < now.graph->value_capacity(); ++v)
      if (const auto id = static_cast<ValueId>(v); now.graph->value_alive(id) && !now.graph->value(id).uses.empty())
        if (const Tensor* t = now.graph->constant(id); t && t->rank() == 2) bytes += static_cast<int64_t>(t->bytes());
    EXPECT_EQ(bytes, 32 * 32) << type;
  }
}

TEST(RecurrentWeights, ThatOnlyABodyMultipliesByAreStoredToo) {
  const Model before = graph_of(R"(g (float[4,32] x, float[32,32] wk) => (float[4,32] y) {
    n = Constant <value = int64 {2}> () go = Constant <value = bool {1}> ()
    y = Loop(n, go, x) <body = b (int64 i, bool c, float[4,32] s) => (bool d, float[4,32] t) { d = Identity(c) u = MatMul(s, wk) t = Tanh(u) }> })");
  const Model now = quantized(before, "quantize_weights", {{"min_sqnr_db", 5.0}, {"block_size", int64_t{16}}});
  EXPECT_EQ(constant_of(now, "DequantizeLinear", 0).dtype(), DType::I4);
  EXPECT_EQ(constant_of(now, "DequantizeLinear", 1).shape(), (Shape{2, 32}));  // blocks along the product's sum
  EXPECT_GT(sqnr(before, now), 5);
}

/// Two products; the first one's rows have an outlier where the input is always 0, so that one scale for a row leaves nothing of the others.
Model outliers() {
  Model m = graph_of("g (float[4,64] x, float[64,64] w, float[64,32] wk) => (float[4,32] y) { a = MatMul(x, w) b = Tanh(a) y = MatMul(b, wk) }");
  GraphEdit edit(*m.graph);
  Tensor w = noise(DType::F32, {64, 64}, 3);
  for (int64_t i = 0; i < 64; ++i) w.mutable_data<float>()[i] = 4000;
  edit.set_constant(m.graph->find_value("w"), w);
  return m;
}

Tensor without_first(unsigned seed) {
  Tensor x = mixture({4, 64}, seed);
  for (int64_t r = 0; r < 4; ++r) x.mutable_data<float>()[r * 64] = 0;
  return x;
}

Model by(const Model& model, const std::string& pass, const Settings& settings, Report& report) {
  Model out = copy_of(model);
  PipelineStep step{pass, {}};
  for (const OptionDef& o : find_pass(pass)->options) step.options.set(o.name, o.otherwise);
  for (const auto& [name, value] : settings) step.options.set(name, value);
  std::vector<Tensor> samples;
  for (unsigned s = 0; s < 8; ++s) samples.push_back(without_first(30 + s));
  Calibration calibration(std::make_shared<HeldSamples>(samples), CalibrationOptions{});
  static const std::vector<GroupRule> kNoGroups;
  run_pipeline(out, {step}, {.profile = find_profile("ort-cpu"), .groups = kNoGroups, .calibration = &calibration}, report);
  return parse_model(serialize_model(out));
}

double sqnr_without_first(const Model& a, const Model& b) {
  double signal = 0, noise = 0;
  for (unsigned seed : {70u, 71u}) {
    const std::map<std::string, Tensor> inputs{{"x", without_first(seed)}};
    const auto x = to_vector<double>(Session(*a.graph).run(inputs)[0]), y = to_vector<double>(Session(*b.graph).run(inputs)[0]);
    for (size_t i = 0; i < x.size(); ++i) signal += x[i] * x[i], noise += (x[i] - y[i]) * (x[i] - y[i]);
  }
  return 10 * std::log10(signal / noise);
}

TEST(FewBits, LayersThatAddMostNoiseGetEight) {
  Model before = graph_of("g (float[4,64] x, float[64,64] w, float[64,32] wk) => (float[4,32] y) { a = MatMul(x, w) b = Tanh(a) y = MatMul(b, wk) }");
  Report report;
  const Model now = by(before, "quantize_weights", {{"algorithm", std::string("nearest")}, {"min_sqnr_db", 22.0}}, report);
  int eight = 0, four = 0;
  for (NodeId id : now.graph->order())
    if (const Node& n = now.graph->node(id); n.is("DequantizeLinear")) (now.graph->constant(n.input(0))->dtype() == DType::I8 ? eight : four)++;
  EXPECT_EQ(eight + four, 2);
  EXPECT_GE(eight, 1);
  EXPECT_GT(sqnr_without_first(before, now), 19);
  EXPECT_TRUE(report.warnings.empty());
  EXPECT_EQ(std::count_if(report.layers.begin(), report.layers.end(), [](const LayerReport& l) { return l.weights == "int8, per channel"; }), eight);
}

TEST(FewBits, WeightsOfIntegerLayersGetTheirEightBitsBack) {
  const Model before = graph_of("g (float[4,64] x, float[64,64] w, float[64] wb, float[64,32] wk, float[32] wc) => (float[4,32] y) { a = Gemm(x, w, wb) b = Relu(a) y = Gemm(b, wk, wc) }");
  const auto codes = [](const Model& m, DType type) {
    int64_t count = 0;
    for (NodeId id : m.graph->order())
      if (const Node& n = m.graph->node(id); n.is("DequantizeLinear"))
        if (const Tensor* t = m.graph->constant(n.input(0)); t && t->rank() == 2) count += t->dtype() == type;
    return count;
  };
  Report report;
  const Settings eight{{"activations", std::string("static")}};
  Settings four = eight, wanting = eight;
  four.emplace_back("weight_type", std::string("int4"));
  wanting.emplace_back("weight_type", std::string("int4"));
  wanting.emplace_back("min_narrow_sqnr_db", 190.0);
  EXPECT_EQ(codes(by(before, "quantize_int8", four, report), DType::I4), 2);
  const Model again = by(before, "quantize_int8", wanting, report), straight = by(before, "quantize_int8", eight, report);
  EXPECT_EQ(codes(again, DType::I4), 0);
  EXPECT_EQ(codes(again, DType::I8), 2);
  EXPECT_LE(difference(again, straight), 1e-6);
}

TEST(StoredWeights, ThatCostTooMuchGoBackToFloat) {
  const Model before = outliers();
  Report report;
  const Model now = by(before, "quantize_int8", {}, report);
  EXPECT_GT(sqnr_without_first(before, now), 18);
  const auto first = std::find_if(report.layers.begin(), report.layers.end(), [](const LayerReport& l) { return l.weight_elements == 64 * 64; });
  ASSERT_NE(first, report.layers.end());
  EXPECT_EQ(first->form, LayerForm::Float32);
}

TEST(SharedWeights, AreStoredOnce) {
  const Model before = graph_of("g (float[4,32] x, float[32,32] wk) => (float[4,32] y) { a = MatMul(x, wk) b = Tanh(a) y = MatMul(b, wk) }");
  EXPECT_EQ(ops(quantized(before, "quantize_weights", {})), "DequantizeLinear MatMul Tanh MatMul");
  EXPECT_EQ(ops(quantized(before, "quantize_float8", {{"activations", std::string("none")}})), "DequantizeLinear MatMul Tanh MatMul");
}

}  // namespace
}  // namespace infopt::test
