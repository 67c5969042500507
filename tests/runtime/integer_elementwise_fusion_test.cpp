// Sums, products by element, tables, poolings and moves of codes, against the same graphs in float.
#include "tests/runtime/fusion_harness.h"

namespace infopt::test {
namespace {

Shape some_shape(Random& r, int64_t low_rank, int64_t high_rank) {
  Shape shape;
  for (int64_t i = r.in(low_rank, high_rank); i > 0; --i) shape.push_back(r.chance(25) ? 0 : r.in(1, 6));
  return shape;
}

/// A shape that broadcasts with `whole`, as squeeze-and-excitation's, as a scalar, of fewer axes, or with axes of 1.
Shape other_shape(Random& r, const Shape& whole) {
  Shape shape = whole;
  switch (r.in(0, 4)) {
    case 0: return whole;
    case 1:
      for (size_t i = 2; i < shape.size(); ++i) shape[i] = 1;
      return shape;
    case 2: return {};
    case 3: shape.erase(shape.begin(), shape.begin() + r.in(0, static_cast<int64_t>(shape.size()))); return shape;
    default:
      for (int64_t& d : shape) d = r.chance(2) ? 1 : d;
      return shape;
  }
}

/// A convolution of one tap that leaves each channel as it is: its result lies channels last. `q` of the same step.
ValueId channels_last(Net& net, ValueId codes, const Step& s, const Shape& shape) {
  const Shape w{shape[1], shape[1]};
  Tensor identity = Tensor::zeros(DType::I8, w);
  for (int64_t c = 0; c < shape[1]; ++c) identity.mutable_data<int8_t>()[c * shape[1] + c] = 1;
  Shape taps = w;
  taps.resize(shape.size(), 1);
  const ValueId weights = net.add("DequantizeLinear", {net.constant(identity.reshaped(taps)), net.number(1)});
  return net.quantize(net.add("Conv", {net.dequantize(codes, s), weights}), s);
}

TEST(IntegerBinaryFusion, AddsAndMultipliesWithBroadcasting) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    const bool product = r.chance(2);
    const Shape shape = some_shape(r, 0, 5), other = other_shape(r, shape);
    const Step a = random_step(r, r.real(0.02f, 0.1f)), b = random_step(r, r.real(0.02f, 0.1f));
    Net net;
    const ValueId x = net.input(a.type, shape), z = net.input(b.type, other);
    std::string steps = product ? "Mul" : "Add";
    auto laid = [&](ValueId v, const Step& s, const Shape& own) {
      if (own.size() < 3 || own.size() > 5 || r.chance(2) || element_count(own) == 0) return v;
      steps = "Conv " + steps;
      return channels_last(net, v, s, own);
    };
    std::vector<ValueId> in{net.dequantize(laid(x, a, shape), a), net.dequantize(laid(z, b, other), b)};
    if (r.chance(2)) std::swap(in[0], in[1]);
    ValueId y = net.add(product ? "Mul" : "Add", in);
    const Step to = random_step(r, product ? 100 * a.scale * b.scale : a.scale + b.scale);
    if (r.chance(3)) y = r.chance(2) ? net.add("Relu", {y}) : net.add("Clip", {y, net.number(-20 * to.scale), net.number(60 * to.scale)});
    net.output(net.quantize(y, to));
    // A convolution whose codes one sum alone reads takes the sum in.
    const bool taken = !product && steps != "Add";
    (void)expect_fused(net, {{x, random_codes(r, a.type, shape)}, {z, random_codes(r, b.type, other)}}, taken ? "" : steps, agreement);
    if (HasFatalFailure()) return;
  }
  agreement.expect_rare(0.01);
}

/// Activations as exporters write them.
ValueId activation(Net& net, int64_t kind, ValueId x) {
  switch (kind) {
    case 0: return net.add("Sigmoid", {x});
    case 1: return net.add("Mul", {x, net.add("Sigmoid", {x})});
    case 2:
      return net.add(
          "Div", {net.add("Mul", {x, net.add("Clip", {net.add("Add", {x, net.number(3)}), net.number(0), net.number(6)})}), net.number(6)});
    case 3: return net.add("Mul", {net.add("HardSigmoid", {x}, {{"alpha", 1.0f / 6, {}}}), x});
    case 4: {
      const ValueId erf = net.add("Erf", {net.add("Div", {x, net.number(1.41421356f)})});
      return net.add("Mul", {net.add("Mul", {x, net.add("Add", {erf, net.number(1)})}), net.number(0.5f)});
    }
    case 5: return net.add("Tanh", {x});
    case 6: return net.add("LeakyRelu", {x}, {{"alpha", 0.1f, {}}});
    case 7: return net.add("PRelu", {x, net.number(0.25f, {1})});
    case 8: return net.add("Sub", {net.number(1), net.add("Neg", {net.add("Mul", {net.add("Relu", {x}), net.number(0.5f, {1, 1})})})});
    case 9: return net.add("Max", {x, net.number(-0.5f), net.add("Mul", {x, net.number(0.1f)})});
    case 10: return net.add("Pow", {x, net.number(2)});
    default: return net.add("Reciprocal", {x});  // of 0, too
  }
}

TEST(IntegerTableFusion, LooksUpAnyFunctionOfOneTensor) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 240; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    Shape shape = some_shape(r, 0, 4);
    if (seed % 12 == 7 && shape.empty()) shape = {1};
    const Step from = random_step(r, r.real(0.02f, 0.06f)), to = random_step(r, r.real(0.01f, 0.06f));
    Net net;
    const ValueId x = r.chance(2) ? net.input(from.type, shape) : net.open_input(from.type);
    net.output(net.quantize(activation(net, seed % 12, net.dequantize(x, from)), to));
    const Graph& graph = net.graph();
    EXPECT_EQ(Session(graph).profile().size(), 1u);
    (void)expect_fused(net, {{x, random_codes(r, from.type, shape)}}, "QuantizeLinear", agreement);
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(agreement.apart, 0);
}

/// A constant of more axes than the tensor makes a result of more axes.
TEST(IntegerTableFusion, KeepsTheAxesOfItsConstants) {
  Random r(1);
  for (const Shape& shape : {Shape{}, Shape{5}, Shape{2, 3}, Shape{2, 3, 4}}) {
    for (const Shape& constant : {Shape{1}, Shape{1, 1}, Shape{1, 1, 1, 1}}) {
      Net net;
      const ValueId x = net.open_input(DType::U8);
      net.output(net.quantize(net.add("Mul", {net.dequantize(x, {DType::U8, 0.1f, 3}), net.number(0.7f, constant)}), {DType::I8, 0.2f, 3}));
      const auto y = expect_fused(net, {{x, random_codes(r, DType::U8, shape)}}, "QuantizeLinear");
      EXPECT_EQ(y[0].shape().size(), std::max(shape.size(), constant.size()));
    }
  }
}

TEST(IntegerTableFusion, KeepsTheAxesOfItsConstantsBehindACore) {
  Random r(1);
  for (const bool conv : {false, true}) {
    Net net;
    const Step s{DType::U8, 0.1f, 100};
    const Shape w = conv ? Shape{3, 3, 1} : Shape{3, 3};
    const ValueId x = net.input(DType::U8, conv ? Shape{1, 3, 4} : Shape{3});
    const ValueId weights = net.add("DequantizeLinear", {net.constant(random_codes(r, DType::I8, w)), net.number(0.01f)});
    const ValueId y = net.quantize(net.add(conv ? "Conv" : "MatMul", {net.dequantize(x, s), weights}), s);
    net.output(net.quantize(net.add("Mul", {net.dequantize(y, s), net.number(0.7f, {1, 1, 1, 1})}), s));
    (void)expect_fused(net, {{x, random_codes(r, DType::U8, conv ? Shape{1, 3, 4} : Shape{3})}},
                       conv ? "Conv QuantizeLinear" : "MatMul QuantizeLinear");
  }
}

TEST(IntegerTableFusion, StopsWhereSomeoneElseReads) {
  Random r(1);
  const Step s{DType::U8, 0.05f, 120};
  const Tensor codes = random_codes(r, DType::U8, {2, 40});
  {  // a float between is an output
    Net net;
    const ValueId x = net.input(DType::U8, {2, 40}), between = net.add("Sigmoid", {net.dequantize(x, s)});
    net.output(net.quantize(net.add("Tanh", {between}), s));
    net.output(between);
    expect_kept(net, {{x, codes}});
  }
  {  // another operator reads it
    Net net;
    const ValueId x = net.input(DType::U8, {2, 40}), between = net.add("Sigmoid", {net.dequantize(x, s)});
    net.output(net.quantize(net.add("Tanh", {between}), s));
    net.output(net.add("ReduceSum", {between}));
    expect_kept(net, {{x, codes}});
  }
  {  // two tensors of codes
    Net net;
    const ValueId x = net.input(DType::U8, {2, 40}), z = net.input(DType::U8, {2, 40});
    net.output(net.quantize(net.add("Add", {net.add("Sigmoid", {net.dequantize(x, s)}), net.dequantize(z, s)}), s));
    expect_kept(net, {{x, codes}, {z, codes}});
  }
  {  // a constant for each column
    Net net;
    const ValueId x = net.input(DType::U8, {2, 40});
    net.output(net.quantize(net.add("Mul", {net.dequantize(x, s), net.constant(Tensor::vector(std::vector<float>(40, 0.5f)))}), s));
    expect_kept(net, {{x, codes}});
  }
  {  // the dequantized source may be shared: the table reads the codes
    Net net;
    const ValueId x = net.input(DType::U8, {2, 40}), real = net.dequantize(x, s);
    net.output(net.quantize(net.add("Sigmoid", {real}), s));
    net.output(net.add("ReduceSum", {real}));
    (void)expect_fused(net, {{x, codes}}, "DequantizeLinear QuantizeLinear ReduceSum");
  }
}

TEST(IntegerPoolFusion, AgreesWithFloat) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    const int64_t kind = r.in(0, 2);
    const size_t spatial = static_cast<size_t>(r.in(1, 3));
    Shape shape{r.chance(15) ? 0 : r.in(1, 3), r.in(1, 40)};
    std::vector<int64_t> kernel, strides, dilations, begin, end;
    const std::string auto_pad = r.chance(4) ? r.pick({"SAME_UPPER", "SAME_LOWER", "VALID"}) : "NOTSET";
    for (size_t i = 0; i < spatial; ++i) {
      kernel.push_back(r.in(1, 4));
      strides.push_back(r.in(1, 3));
      dilations.push_back(r.chance(4) ? 2 : 1);
      begin.push_back(r.in(0, kernel.back() - 1));
      end.push_back(r.in(0, kernel.back() - 1));
      shape.push_back((kernel.back() - 1) * dilations.back() + 1 + r.in(0, 6));
    }
    begin.insert(begin.end(), end.begin(), end.end());
    Attributes attributes{
        {"kernel_shape", kernel, {}}, {"strides", strides, {}}, {"dilations", dilations, {}}, {"ceil_mode", r.in(0, 1), {}}};
    if (auto_pad == "NOTSET") attributes.push_back({"pads", begin, {}});
    else attributes.push_back({"auto_pad", auto_pad, {}});
    if (kind == 1) attributes.push_back({"count_include_pad", r.in(0, 1), {}});
    if (kind == 2) attributes.clear();
    const Step from = random_step(r, r.real(0.02f, 0.06f)), to = kind == 0 ? from : random_step(r, from.scale * r.real(0.6f, 1.5f));
    Net net;
    const ValueId x = net.input(from.type, shape);
    const char* op = kind == 0 ? "MaxPool" : kind == 1 ? "AveragePool" : "GlobalAveragePool";
    net.output(net.quantize(net.add(op, {net.dequantize(x, from)}, attributes), to));
    (void)expect_fused(net, {{x, random_codes(r, from.type, shape)}}, op, agreement);
    if (HasFatalFailure()) return;
  }
  agreement.expect_rare(0.004);
}

TEST(IntegerMoveFusion, MovesCodesOfOneStep) {
  Random r(5);
  for (unsigned seed = 0; seed < 80; ++seed) {
    SCOPED_TRACE(seed);
    const Step s = random_step(r, 0.03f);
    const bool equal = !r.chance(4);
    const Step to = equal ? s : Step{s.type, 0.035f, s.zero, true};
    const Shape shape{2, 4, 6, 4};
    Net net;
    const ValueId x = net.input(s.type, shape), codes = r.chance(2) ? x : channels_last(net, x, s, shape), real = net.dequantize(codes, s);
    const std::vector<std::pair<std::string, ValueId>> moves{
        {"Reshape", net.add("Reshape", {real, net.integers({2, -1})})},
        {"Transpose", net.add("Transpose", {real}, {{"perm", std::vector<int64_t>{3, 1, 0, 2}, {}}})},
        {"Concat", net.add("Concat", {real, real}, {{"axis", int64_t{1}, {}}})},
        {"Slice", net.add("Slice", {real, net.integers({1, 3}), net.integers({3, -9}), net.integers({1, 2}), net.integers({1, -2})})},
        {"Flatten", net.add("Flatten", {real})},
        {"Gather", net.add("Gather", {real, net.integers({3, 0, 1})}, {{"axis", int64_t{1}, {}}})},
        {"Resize",
         net.add("Resize", {real, kNone, net.constant(Tensor::vector<float>({1, 1, 2, 1.5f}))}, {{"mode", std::string("nearest"), {}}})},
        {"DepthToSpace", net.add("DepthToSpace", {real}, {{"blocksize", int64_t{2}, {}}})},
        {"SpaceToDepth", net.add("SpaceToDepth", {real}, {{"blocksize", int64_t{2}, {}}})},
        {"Expand", net.add("Expand", {real, net.integers({3, 1, 1, 1, 1})})},
        {"Tile", net.add("Tile", {real, net.integers({1, 2, 1, 2})})},
        {"Unsqueeze", net.add("Unsqueeze", {real, net.integers({0, 2})})},
        {"Identity", net.add("Identity", {real})},
    };
    const auto& [name, moved] = moves[seed % moves.size()];
    net.output(net.quantize(moved, to));
    const std::string before = codes == x ? "" : "Conv ";
    Agreement agreement;
    (void)expect_fused(net, {{x, random_codes(r, s.type, shape)}},
                       equal || name == "Identity" ? "" : before + "DequantizeLinear " + name + " QuantizeLinear", agreement);
    EXPECT_EQ(agreement.apart, 0);
    if (equal && name != "Identity") {
      EXPECT_EQ(steps_of(net.graph()), before + name);
    }
    if (HasFatalFailure()) return;
  }
}

/// What lies outside of the image is a float there, not a code.
TEST(IntegerMoveFusion, RefusesAResizeThatInventsValues) {
  Net net;
  const Step s{DType::U8, 0.5f, 100};
  const ValueId x = net.input(DType::U8, {1, 1, 2, 2});
  const ValueId roi = net.constant(Tensor::vector<float>({0, 0, -1, -1, 1, 1, 2, 2})), sizes = net.integers({1, 1, 4, 4});
  const Attributes attributes{{"mode", std::string("nearest"), {}},
                              {"coordinate_transformation_mode", std::string("tf_crop_and_resize"), {}},
                              {"extrapolation_value", 7.0f, {}}};
  net.output(net.quantize(net.add("Resize", {net.dequantize(x, s), roi, kNone, sizes}, attributes), s));
  expect_kept(net, {{x, Tensor::of<uint8_t>({1, 1, 2, 2}, {1, 2, 3, 4})}});
}

}  // namespace
}  // namespace infopt::test
