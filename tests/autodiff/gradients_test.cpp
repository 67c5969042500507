// Every gradient against central differences of the operator's own kernel, in double where it has one. Products and convolutions, whose
// kernels are float32, are linear in each operand: wide steps lose nothing there.
#include <gtest/gtest.h>

#include <cmath>

#include "lib/autodiff/tape.h"
#include "tests/ops/op_harness.h"

namespace infopt::test {
namespace {

struct Case {
  std::string what;
  Op op;
  std::vector<Tensor> inputs;
  double step = 1e-4;  ///< of the differences; wide steps run in float32
  double bound = 2e-4;
  Layout layout = Layout::Plain;  ///< of what comes and of the loss's gradient, where they have channels
};

Attribute ints(std::string name, std::vector<int64_t> v) { return {std::move(name), std::move(v), {}}; }
Attribute number(std::string name, int64_t v) { return {std::move(name), v, {}}; }
Attribute real(std::string name, float v) { return {std::move(name), v, {}}; }
Attribute text(std::string name, std::string v) { return {std::move(name), std::move(v), {}}; }
Tensor list(std::vector<int64_t> v) { return Tensor::vector(v); }

double weight(size_t output, int64_t place) { return std::sin(1.0 + 0.7 * static_cast<double>(place) + static_cast<double>(output)); }

bool in_float(const Case& c) { return c.step > 0.01; }

double loss(const Case& c, const std::vector<Tensor>& inputs) {
  double sum = 0;
  const auto outputs = run_op(c.op, inputs);
  for (size_t o = 0; o < outputs.size(); ++o) {
    const auto y = to_vector<double>(outputs[o]);
    for (size_t i = 0; i < y.size(); ++i) sum += weight(o, static_cast<int64_t>(i)) * y[i];
  }
  return sum;
}

double difference(const Case& c, size_t input, int64_t place) {
  double sides[2];
  for (int side : {0, 1}) {
    std::vector<Tensor> inputs;
    for (size_t i = 0; i < c.inputs.size(); ++i) {
      const Tensor& t = c.inputs[i];
      Tensor copy = t.defined() && t.dtype() == DType::F32 && !in_float(c) ? cast(t, DType::F64) : t.defined() ? t.clone() : t;
      if (i == input) {
        const double by = side ? c.step : -c.step;
        if (in_float(c)) copy.mutable_data<float>()[place] += static_cast<float>(by);
        else copy.mutable_data<double>()[place] += by;
      }
      inputs.push_back(copy);
    }
    sides[side] = loss(c, inputs);
  }
  return (sides[1] - sides[0]) / (2 * c.step);
}

void check(const Case& c) {
  SCOPED_TRACE(c.what);
  Graph graph;
  graph.opsets[""] = c.op.opset;
  std::vector<ValueId> ins, outs;
  Piece::Spec spec;
  {
    GraphEdit edit(graph);
    for (const Tensor& t : c.inputs) {
      ins.push_back(t.defined() ? edit.add_input("x" + std::to_string(ins.size()), Type::tensor(t.dtype(), t.shape())) : kNone);
      if (!t.defined()) continue;
      spec.inputs.push_back(ins.back());
      if (t.dtype() == DType::F32) spec.differentiate.push_back(ins.back());
    }
    for (size_t i = 0; i < c.op.outputs; ++i) outs.push_back(edit.add_value("y" + std::to_string(i)));
    edit.add_node({.op = c.op.name, .attributes = c.op.attributes}, ins, outs);
  }
  spec.outputs = outs;
  const Piece piece(graph, spec);
  Tape tape(piece);
  std::unordered_map<ValueId, infopt::Laid> feeds, by_outputs;
  for (size_t i = 0; i < ins.size(); ++i)
    if (ins[i] != kNone) feeds[ins[i]] = {infopt::Laid(c.inputs[i]).as(c.layout), c.layout};
  tape.forward(feeds);
  for (size_t o = 0; o < outs.size(); ++o) {
    Tensor dy(DType::F32, tape.value(outs[o]).shape());
    for (int64_t i = 0; i < dy.size(); ++i) dy.mutable_data<float>()[i] = static_cast<float>(weight(o, i));
    by_outputs[outs[o]] = {infopt::Laid(dy).as(c.layout), c.layout};
  }
  tape.backward(by_outputs);
  for (size_t i = 0; i < ins.size(); ++i) {
    if (ins[i] == kNone || c.inputs[i].dtype() != DType::F32) continue;
    const Tensor d = tape.gradient(ins[i]);
    ASSERT_EQ(d.shape(), c.inputs[i].shape());
    for (int64_t k = 0; k < d.size(); k += 1 + d.size() / 60) {
      const double expected = difference(c, i, k);
      ASSERT_NEAR(d.data<float>()[k], expected, c.bound * (1 + std::fabs(expected))) << "input " << i << ", element " << k;
    }
  }
}

void check_all(const std::vector<Case>& cases) {
  for (const Case& c : cases) check(c);
}

constexpr double kWide = 0.25;
Numbers numbers(7);
Tensor floats(const Shape& shape, float low = -3, float high = 3) { return numbers.floats(shape, low, high); }
Tensor constant(float v) { return Tensor::scalar<float>(v); }

TEST(Gradients, Convolutions) {
  check_all({
      {"plain", {"Conv"}, {floats({2, 3, 7, 6}), floats({4, 3, 3, 3}), floats({4})}, kWide},
      {"pads and strides", {"Conv", {ints("pads", {1, 0, 2, 1}), ints("strides", {2, 3})}}, {floats({1, 3, 8, 9}), floats({5, 3, 3, 2}), floats({5})}, kWide},
      {"groups", {"Conv", {number("group", 2), ints("pads", {1, 1, 1, 1})}}, {floats({2, 4, 5, 5}), floats({6, 2, 3, 3}), floats({6})}, kWide},
      {"depthwise", {"Conv", {number("group", 6), ints("pads", {2, 2, 2, 2}), ints("strides", {2, 2})}}, {floats({2, 6, 7, 7}), floats({6, 1, 5, 5})}, kWide},
      {"depthwise of many channels", {"Conv", {number("group", 70), ints("pads", {1, 0, 2, 3}), ints("strides", {1, 2}), ints("dilations", {1, 2})}}, {floats({2, 70, 6, 7}), floats({70, 1, 4, 3})}, kWide},
      {"dilated, padded by rule", {"Conv", {text("auto_pad", "SAME_UPPER"), ints("dilations", {2, 2})}}, {floats({1, 2, 6, 7}), floats({3, 2, 3, 3})}, kWide},
      {"a wide kernel", {"Conv", {ints("pads", {1, 19, 1, 19}), ints("strides", {1, 3})}}, {floats({2, 3, 4, 24}), floats({5, 3, 3, 39}), floats({5})}, kWide},
      {"a wide kernel in groups", {"Conv", {number("group", 2), ints("pads", {0, 30, 0, 30}), ints("dilations", {1, 2})}}, {floats({1, 4, 2, 9}), floats({6, 2, 2, 29})}, kWide},
      {"of one column", {"Conv"}, {floats({3, 8, 4, 4}), floats({16, 8, 1, 1}), floats({16})}, kWide},
      {"in one dimension", {"Conv", {ints("pads", {1, 1})}}, {floats({2, 3, 9}), floats({4, 3, 3})}, kWide},
      {"in three", {"Conv"}, {floats({1, 2, 4, 4, 4}), floats({3, 2, 2, 2, 2})}, kWide},
      {"transposed", {"ConvTranspose", {ints("strides", {2, 2}), ints("pads", {1, 0, 1, 0}), ints("output_padding", {1, 1})}}, {floats({2, 3, 4, 5}), floats({3, 4, 3, 3}), floats({4})}, kWide},
      {"transposed in groups", {"ConvTranspose", {number("group", 2)}}, {floats({1, 4, 4, 4}), floats({4, 3, 2, 2})}, kWide},
  });
}

TEST(Gradients, Products) {
  check_all({
      {"matrices", {"MatMul"}, {floats({4, 5}), floats({5, 3})}},
      {"a batch by a matrix", {"MatMul"}, {floats({2, 3, 4, 5}), floats({5, 3})}},
      {"batches", {"MatMul"}, {floats({2, 3, 4, 5}), floats({2, 3, 5, 2})}},
      {"stretched batches", {"MatMul"}, {floats({2, 1, 4, 5}), floats({3, 5, 2})}},
      {"a vector", {"MatMul"}, {floats({5}), floats({5, 3})}},
      {"with a vector", {"MatMul"}, {floats({4, 5}), floats({5})}},
      {"Gemm", {"Gemm", {real("alpha", 0.5f), real("beta", 2)}}, {floats({4, 5}), floats({5, 3}), floats({3})}},
      {"transposed Gemm", {"Gemm", {number("transA", 1), number("transB", 1)}}, {floats({5, 4}), floats({3, 5}), floats({4, 1})}},
      {"half transposed Gemm", {"Gemm", {number("transB", 1)}}, {floats({4, 5}), floats({3, 5})}},
  });
}

TEST(Gradients, FunctionsOfOneElement) {
  const Tensor x = floats({3, 4, 5}, -5, 5), positive = floats({3, 4, 5}, 0.5f, 4);
  std::vector<Case> cases;
  for (const char* op : {"Relu", "Elu", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh", "Erf", "Gelu", "Softplus", "Exp", "Neg", "Abs", "LeakyRelu", "Identity", "Sin", "Cos", "Softsign", "Selu"}) cases.push_back({op, {op}, {x}});
  for (const char* op : {"Sqrt", "Log", "Reciprocal"}) cases.push_back({op, {op}, {positive}});
  cases.push_back({"Mish", {"Mish", {}, 18}, {x}});
  cases.push_back({"Gelu by tanh", {"Gelu", {text("approximate", "tanh")}}, {x}});
  for (const Case& c : cases) check(c);
}

TEST(Gradients, ClipPassesWithinItsBounds) { check({"Clip", {"Clip"}, {floats({3, 4, 5}, -5, 8)}}); }

TEST(Gradients, FunctionsOfTwoElementsStretchBack) {
  std::vector<Case> cases;
  for (const char* op : {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"}) {
    cases.push_back({std::string(op) + " of one shape", {op}, {floats({2, 3, 4}, 0.5f, 3), floats({2, 3, 4}, 0.5f, 3)}});
    cases.push_back({std::string(op) + " by channel", {op}, {floats({2, 3, 4, 2}, 0.5f, 3), floats({3, 1, 1}, 0.5f, 3)}});
    cases.push_back({std::string(op) + " both ways", {op}, {floats({2, 1, 4}, 0.5f, 3), floats({3, 1}, 0.5f, 3)}});
    cases.push_back({std::string(op) + " with a scalar", {op}, {constant(1.5f), floats({3, 2}, 0.5f, 3)}});
  }
  cases.push_back({"Sum of three", {"Sum"}, {floats({2, 3, 4}), floats({3, 1}), floats({4})}});
  cases.push_back({"PRelu", {"PRelu"}, {floats({2, 3, 4}), floats({3, 1})}});
  check_all(cases);
}

TEST(Gradients, SoftmaxAlongAnyAxis) {
  check_all({
      {"last", {"Softmax"}, {floats({3, 4, 5})}},
      {"middle", {"Softmax", {number("axis", 1)}}, {floats({3, 4, 5})}},
      {"flattened", {"Softmax", {}, 11}, {floats({3, 4, 5})}},
      {"logarithmic", {"LogSoftmax"}, {floats({3, 4})}},
  });
}

TEST(Gradients, Normalizations) {
  check_all({
      {"layer", {"LayerNormalization"}, {floats({3, 4, 8}), floats({8}), floats({8})}, 1e-3},
      {"layer of two axes, no bias", {"LayerNormalization", {number("axis", 1)}}, {floats({3, 4, 5}), floats({4, 5})}, 1e-3},
      {"instance", {"InstanceNormalization"}, {floats({2, 3, 4, 5}), floats({3}), floats({3})}, 1e-3},
      {"root mean square", {"RMSNormalization", {}, 23}, {floats({3, 4, 8}), floats({8})}, 1e-3},
  });
}

TEST(Gradients, Reductions) {
  const Tensor x = floats({3, 4, 5});
  for (const char* op : {"ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceMax", "ReduceMin"}) {
    if (std::string(op) != "ReduceSum") check({std::string(op) + ", axes as an attribute", {op, {ints("axes", {-1})}, 13}, {x}});
    check({std::string(op) + " of all", {op, {number("keepdims", 0)}}, {x}});
    check({std::string(op) + " of axes", {op}, {x, list({-1, 0})}});
    check({std::string(op) + " of the middle", {op, {number("keepdims", 0)}}, {x, list({1})}});
  }
  check({"axes as an attribute", {"ReduceMean", {ints("axes", {1})}, 13}, {x}});
}

TEST(Gradients, Movements) {
  const Tensor x = floats({2, 3, 4});
  check_all({
      {"Reshape", {"Reshape"}, {x, list({4, -1})}},
      {"Flatten", {"Flatten"}, {x}},
      {"Squeeze", {"Squeeze"}, {floats({2, 1, 3}), list({1})}},
      {"Unsqueeze", {"Unsqueeze"}, {x, list({0, 2})}},
      {"Transpose", {"Transpose", {ints("perm", {1, 2, 0})}}, {x}},
      {"Slice", {"Slice"}, {x, list({3, 0}), list({-9, 2}), list({2, 0}), list({-2, 1})}},
      {"Concat", {"Concat", {number("axis", 1)}}, {x, floats({2, 2, 4}), floats({2, 1, 4})}},
      {"Split", {"Split", {number("axis", 2)}, 13, 2}, {x, list({1, 3})}},
      {"Gather", {"Gather", {number("axis", 1)}}, {x, list({2, 0, 2})}},
      {"Expand", {"Expand"}, {floats({3, 1}), list({2, 3, 4})}},
      {"GatherElements", {"GatherElements", {number("axis", 1)}}, {x, Tensor::of<int64_t>({2, 2, 4}, {0, 2, 1, 1, 0, 0, 2, 1, 1, 1, 0, 2, 2, 0, 1, 0})}},
      {"GatherND", {"GatherND"}, {x, Tensor::of<int64_t>({2, 2}, {1, 2, 0, 1})}},
      {"ScatterElements", {"ScatterElements", {number("axis", 1)}}, {x, Tensor::of<int64_t>({1, 2, 2}, {0, 2, 1, 0}), floats({1, 2, 2})}},
      {"ScatterND", {"ScatterND"}, {x, Tensor::of<int64_t>({2, 2}, {1, 2, 0, 1}), floats({2, 4})}},
      {"ReverseSequence", {"ReverseSequence", {number("batch_axis", 0), number("time_axis", 1)}}, {x, list({2, 3})}},
      {"Pad with zeros", {"Pad"}, {x, list({0, 1, 2, 1, 0, -1})}},
      {"Pad by reflection", {"Pad", {text("mode", "reflect")}}, {x, list({0, 1, 2, 0, 1, 3})}},
      {"DepthToSpace", {"DepthToSpace", {number("blocksize", 2)}}, {floats({1, 8, 2, 3})}},
  });
}

TEST(Gradients, Poolings) {
  const Tensor x = floats({2, 3, 7, 6});
  const std::vector<Attribute> window{ints("kernel_shape", {3, 2}), ints("strides", {2, 2}), ints("pads", {1, 0, 1, 1})};
  std::vector<Attribute> counting = window, ceiling = window;
  counting.push_back(number("count_include_pad", 1));
  ceiling.push_back(number("ceil_mode", 1));
  const std::vector<Attribute> line{ints("kernel_shape", {4}), ints("strides", {2}), ints("pads", {2, 1}), ints("dilations", {2})}, cube{ints("kernel_shape", {2, 3, 2}), ints("strides", {1, 2, 2})};
  std::vector<Case> last{{"maximum", {"MaxPool", window}, {x}}, {"maximum, ceiling", {"MaxPool", ceiling}, {x}}, {"average over pads", {"AveragePool", counting}, {x}}, {"average, ceiling", {"AveragePool", ceiling}, {x}}};
  for (Case& c : last) c.what += ", channels last", c.layout = Layout::ChannelsLast;
  check_all(last);
  check_all({
      {"maximum", {"MaxPool", window}, {x}},
      {"maximum of a line", {"MaxPool", line}, {floats({2, 3, 11})}},
      {"maximum of a cube", {"MaxPool", cube}, {floats({1, 2, 4, 5, 6})}},
      {"average of a cube", {"AveragePool", cube}, {floats({1, 2, 4, 5, 6})}},
      {"maximum, ceiling", {"MaxPool", ceiling}, {x}},
      {"average", {"AveragePool", window}, {x}},
      {"average over pads", {"AveragePool", counting}, {x}},
      {"average, ceiling", {"AveragePool", ceiling}, {x}},
      {"global average", {"GlobalAveragePool"}, {x}},
      {"global maximum", {"GlobalMaxPool"}, {x}},
  });
}

TEST(Gradients, AMaximumSendsToTheFirstElementThatHasIt) {
  Graph graph;
  graph.opsets[""] = 21;
  ValueId x, y;
  {
    GraphEdit edit(graph);
    x = edit.add_input("x", Type::tensor(DType::F32, {1, 1, 2, 5}));
    y = edit.add_value("y");
    edit.add_node({.op = "MaxPool", .attributes = {ints("kernel_shape", {2, 3}), ints("strides", {1, 2})}}, {x}, {y});
  }
  const Piece piece(graph, {{x}, {y}, {x}});
  Tape tape(piece);
  tape.forward({{x, Tensor::vector<float>({1, 2, 3, 0, 3, 3, 0, 2, 3, 3}).reshaped({1, 1, 2, 5})}});
  tape.backward({{y, Tensor::vector<float>({10, 100}).reshaped({1, 1, 1, 2})}});
  EXPECT_EQ(to_vector<double>(tape.gradient(x)), (std::vector<double>{0, 0, 110, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(Gradients, ResizesOfEveryKind) {
  const Tensor x = floats({1, 2, 4, 5}), none;
  std::vector<Case> cases;
  for (const char* mode : {"nearest", "linear", "cubic"})
    for (const char* coordinates : {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"}) {
      const std::vector<Attribute> how{text("mode", mode), text("coordinate_transformation_mode", coordinates)};
      cases.push_back({std::string(mode) + " up, " + coordinates, {"Resize", how}, {x, none, none, list({1, 2, 8, 13})}, kWide});
      cases.push_back({std::string(mode) + " down, " + coordinates, {"Resize", how}, {x, none, none, list({1, 2, 3, 2})}, kWide});
    }
  cases.push_back({"Upsample", {"Upsample", {text("mode", "nearest"), {"scales", std::vector<float>{1, 1, 2, 1.5f}, {}}}, 7}, {x}, kWide});
  cases.push_back({"antialias", {"Resize", {text("mode", "linear"), number("antialias", 1)}, 18}, {x, none, none, list({1, 2, 2, 2})}, kWide});
  check_all(cases);
}

/// The kernel is float32: wide steps through functions that bend, so that some thousandths are the differences'.
TEST(Gradients, RecurrentLayers) {
  constexpr double kStep = 0.02, kBound = 2e-3;
  for (const char* direction : {"forward", "reverse", "bidirectional"}) {
    const int64_t d = direction[0] == 'b' ? 2 : 1;
    const auto cell = [&](const char* op, int64_t gates, std::vector<Attribute> more, int64_t layout = 0) {
      more.push_back(text("direction", direction));
      more.push_back(number("hidden_size", 3));
      more.push_back(number("layout", layout));
      const Shape x = layout ? Shape{2, 5, 4} : Shape{5, 2, 4}, h = layout ? Shape{2, d, 3} : Shape{d, 2, 3};
      Case c{std::string(op) + " " + direction, {op, more, 14, op[0] == 'L' ? size_t{3} : size_t{2}},
             {floats(x, -1, 1), floats({d, gates * 3, 4}, -1, 1), floats({d, gates * 3, 3}, -1, 1), floats({d, 2 * gates * 3}, -1, 1), {}, floats(h, -1, 1)}, kStep, kBound};
      if (op[0] == 'L') c.inputs.push_back(floats(h, -1, 1));
      return c;
    };
    check_all({cell("RNN", 1, {}), cell("GRU", 3, {}), cell("GRU", 3, {number("linear_before_reset", 1)}), cell("LSTM", 4, {}), cell("LSTM", 4, {}, 1), cell("GRU", 3, {}, 1)});
    for (const char* op : {"GRU", "LSTM"}) {
      Case c = cell(op, op[0] == 'L' ? 4 : 3, {});
      c.what += ", of different lengths";
      c.inputs[4] = cast(list({3, 5}), DType::I32);
      check(c);
    }
  }
}

}  // namespace
}  // namespace infopt::test
