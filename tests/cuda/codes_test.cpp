// Kernels that write the codes of the QuantizeLinear behind them: the same bits as the device gives step by step, and what the CPU gives.
#include "tests/cuda/elements.h"

namespace infopt::test {
namespace {

SessionOptions on_device(bool fuse = true) {
  SessionOptions options;
  options.device = cuda_device();
  options.fallback = false;
  options.fuse = fuse;
  return options;
}

/// A QuantizeLinear to a random type.
struct End {
  DType type;
  float scale;
  int32_t zero = 0;
  DType number;  ///< of the scale

  End(Random& r, DType values, float reach) : type(r.pick({DType::U8, DType::I8, DType::F8E4M3FN, DType::F8E5M2})), number(values) {
    scale = r.real(0.2f, 2.0f) * reach / (is_float(type) ? 200.0f : 127.0f);
    if (!is_float(type)) zero = static_cast<int32_t>(r.in(0, 255)) - (type == DType::I8 ? 128 : 0);
  }
  ValueId add(Net& net, ValueId x) const {
    return net.add("QuantizeLinear", {x, net.constant(cast(Tensor::scalar(scale), number)), net.constant(cast(Tensor::of<int32_t>({}, {zero}), type))});
  }
};

/// One step that makes codes, with what it makes besides. `beside`: how many steps there are more.
void expect_codes(Net& net, const Feeds& feeds, size_t beside = 0) {
  const Graph& graph = net.graph();
  const auto plan = Session(graph, on_device()).plan();
  size_t to_codes = 0;
  for (const auto& step : plan) to_codes += step.kernel.find("to codes") != std::string::npos;
  ASSERT_EQ(to_codes, 1u);
  ASSERT_EQ(plan.size(), 1 + beside);
  expect_same_bits(Session(graph, on_device()).run(feeds), Session(graph, on_device(false)).run(feeds));
}

TEST(CudaCodes, OfNormalizedRowsAndTheSumBeforeThem) {
  Random r(81);
  for (int i = 0; i < 80 && !HasFailure(); ++i) {
    const DType type = r.pick({DType::F32, DType::F32, DType::F16, DType::BF16});
    const int64_t n = r.pick<int64_t>({2, 3, 31, 64, 100, 384, 770, 1030});
    Shape shape = random_shape(r, 1, 2, 5);
    shape.push_back(n);
    const bool centered = r.chance(2), adds = r.chance(2), keeps_sum = adds && r.chance(2), keeps_rows = r.chance(3);
    Net net(23);
    const ValueId a = net.input(type, shape), b = net.input(type, shape);
    ValueId x = a;
    if (adds) x = net.add("Add", {a, b});
    std::vector<ValueId> inputs{x, net.constant(random_tensor(r, type, {n}))};
    if (centered && r.chance(2)) inputs.push_back(net.constant(random_tensor(r, type, {n})));
    const ValueId y = net.add(centered ? "LayerNormalization" : "RMSNormalization", inputs, {{"epsilon", 1e-3f}});
    net.output(net.add("Transpose", {End(r, type, 8).add(net, y)}));  // what is kept besides must be for nodes behind it
    if (keeps_rows) net.output(net.add("Transpose", {y}));
    if (keeps_sum) net.output(net.add("Transpose", {x}));
    SCOPED_TRACE(testing::Message() << name_of(type) << to_string(shape) << (centered ? " centered" : "") << (adds ? " added" : "") << (keeps_sum ? " sum kept" : "") << (keeps_rows ? " rows kept" : ""));
    const Feeds feeds{{a, random_tensor(r, type, shape)}, {b, random_tensor(r, type, shape)}};
    // The sum of 16-bit floats is rounded before it is normalized, by whoever makes it.
    expect_codes(net, feeds, 1 + size_t{keeps_rows} + size_t{keeps_sum});
    if (type == DType::F32) expect_as_cpu(net.graph(), feeds, 1e-5);
  }
}

TEST(CudaCodes, OfNumbersBeyondTheRangeAndNaN) {
  for (const DType type : {DType::U8, DType::I8, DType::F8E4M3FN, DType::F8E5M2}) {
    Random r(82);
    End end(r, DType::F32, 1);
    end.type = type;
    end.zero = type == DType::U8 ? 7 : 0;
    const float inf = std::numeric_limits<float>::infinity();
    const Tensor x = Tensor::of<float>({2, 9}, {0, -0.0f, 1e30f, -1e30f, inf, -inf, std::nanf(""), 0.5f, 1.5f, end.scale * 0.5f, end.scale * 1.5f, end.scale * 2.5f, -end.scale * 0.5f, -end.scale * 1.5f, 1e-40f, 300 * end.scale, -300 * end.scale, 1});
    Net net;
    const ValueId in = net.input(DType::F32, x.shape());
    net.output(end.add(net, net.add("Neg", {in})));
    SCOPED_TRACE(name_of(type));
    expect_codes(net, {{in, x}});
    expect_close(net.graph(), {{in, x}});
  }
}

TEST(CudaCodes, OfElementwiseChains) {
  Random r(83);
  for (int i = 0; i < 60 && !HasFailure(); ++i) {
    const Shape shape = random_shape(r, 1, 4, 9);
    Net net;
    const ValueId a = net.input(DType::F32, shape), b = net.input(DType::F32, r.chance(2) ? shape : Shape{shape.back()});
    ValueId x = r.chance(3) ? a : net.add(r.pick<std::string>({"Relu", "Sigmoid", "Gelu", "Abs"}), {a});
    if (x == a || r.chance(2)) x = net.add(r.pick<std::string>({"Add", "Mul", "Sub"}), {x, b});
    if (r.chance(2)) x = net.add("Mul", {x, net.add("Sigmoid", {x})});
    net.output(End(r, DType::F32, 4).add(net, x));
    SCOPED_TRACE(to_string(shape));
    const Feeds feeds{{a, random_tensor(r, DType::F32, shape)}, {b, random_tensor(r, DType::F32, net.graph().value(b).type.shape.size() == 1 ? Shape{shape.back()} : shape)}};
    expect_codes(net, feeds);
    expect_as_cpu(net.graph(), feeds, 1e-5);
  }
}

TEST(CudaCodes, OfSoftmaxAlongAnyAxis) {
  Random r(84);
  for (int i = 0; i < 60 && !HasFailure(); ++i) {
    const DType type = r.pick({DType::F32, DType::F16, DType::BF16});
    Shape shape = random_shape(r, 1, 3, 6);
    shape.push_back(r.pick<int64_t>({1, 4, 7, 64, 130, 1100}));
    const int64_t opset = r.pick<int64_t>({12, 21});
    Net net(opset == 12 && type == DType::F32 ? 12 : 21);
    const ValueId x = net.input(type, shape);
    End end(r, type, 1);
    if (net.graph().opset() < 19) end.type = DType::U8, end.zero = 3;
    net.output(end.add(net, net.add("Softmax", {x}, {{"axis", r.in(-static_cast<int64_t>(shape.size()), static_cast<int64_t>(shape.size()) - 1)}})));
    SCOPED_TRACE(to_string(shape));
    const Feeds feeds{{x, random_tensor(r, type, shape)}};
    expect_codes(net, feeds);
    if (type == DType::F32) expect_as_cpu(net.graph(), feeds, 1e-5);
  }
}

/// Whoever reads the float before the QuantizeLinear's place needs it earlier than a kernel there would make it.
TEST(CudaCodes, AReaderInBetweenKeepsTheStepsApart) {
  Random r(85);
  Net net(23);
  const ValueId a = net.input(DType::F32, {4, 64}), gain = net.constant(random_tensor(r, DType::F32, {64}));
  const ValueId y = net.add("RMSNormalization", {a, gain});
  net.output(net.add("Transpose", {y}));
  net.output(net.add("QuantizeLinear", {y, net.number(0.1f)}));
  const Feeds feeds{{a, random_tensor(r, DType::F32, {4, 64})}};
  EXPECT_EQ(Session(net.graph(), on_device()).plan().size(), 3u);
  expect_same_bits(Session(net.graph(), on_device()).run(feeds), Session(net.graph(), on_device(false)).run(feeds));
}

/// An output of the graph is made where it stands.
TEST(CudaCodes, AnOutputIsStillMade) {
  Random r(86);
  Net net(23);
  const ValueId a = net.input(DType::F32, {4, 64}), gain = net.constant(random_tensor(r, DType::F32, {64}));
  const ValueId y = net.add("RMSNormalization", {a, gain});
  net.output(y);
  net.output(net.add("QuantizeLinear", {y, net.number(0.1f)}));
  const Feeds feeds{{a, random_tensor(r, DType::F32, {4, 64})}};
  expect_same_bits(Session(net.graph(), on_device()).run(feeds), Session(net.graph(), on_device(false)).run(feeds));
}

/// A float8 product keeps its codes where an activation stands behind it, and the activation's codes are made with it.
TEST(CudaCodes, OfTheActivationBehindAFloat8Product) {
  Random r(87);
  Net net(21);
  const ValueId x = net.input(DType::F8E4M3FN, {5, 32});
  const ValueId a = net.add("DequantizeLinear", {x, net.number(0.05f)});
  const ValueId w = net.add("DequantizeLinear", {net.constant(random_tensor(r, DType::F8E4M3FN, {32, 48})), net.number(0.02f)});
  const ValueId y = net.add("Gelu", {net.add("Add", {net.add("MatMul", {a, w}), net.constant(random_tensor(r, DType::F32, {48}))})});
  net.output(net.add("QuantizeLinear", {y, net.number(0.01f), net.constant(Tensor::zeros(DType::F8E4M3FN, {}))}));
  const auto plan = Session(net.graph(), on_device()).plan();
  ASSERT_EQ(plan.size(), 2u);
  EXPECT_NE(plan[0].kernel.find("float8 product"), std::string::npos) << plan[0].kernel;
  EXPECT_EQ(plan[1].kernel, "one elementwise operator, to codes");
  expect_as_cpu(net.graph(), {{x, random_tensor(r, DType::F8E4M3FN, {5, 32})}}, 0.13);
}

}  // namespace
}  // namespace infopt::test
