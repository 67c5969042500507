// Operators on codes as ONNX Runtime's quantizer writes them: QLinearConv, QLinearAdd, QGemm and their like.
#include "tests/runtime/fusion_harness.h"

namespace infopt::test {
namespace {

constexpr const char* kMicrosoft = "com.microsoft";

Tensor bytes(Shape shape, std::initializer_list<int> values) {
  Tensor t(DType::U8, std::move(shape));
  std::transform(values.begin(), values.end(), t.mutable_data<uint8_t>(), [](int v) { return static_cast<uint8_t>(v); });
  return t;
}

const Tensor kX = bytes({1, 2, 3, 3}, {78, 39, 248, 185, 251, 31, 108, 241, 181, 41, 163, 225, 204, 92, 230, 130, 195, 142});
const Tensor kY = bytes({1, 2, 3, 3}, {132, 27, 235, 249, 54, 172, 100, 248, 110, 171, 177, 20, 179, 19, 26, 116, 251, 171});

/// One operator of the two tensors above.
struct Single {
  Net net;
  ValueId x = net.input(DType::U8, {1, 2, 3, 3}), y = net.input(DType::U8, {1, 2, 3, 3});
  Feeds feeds{{x, kX}, {y, kY}};

  std::vector<ValueId> codes(ValueId v, float scale, int zero) { return {v, net.number(scale), net.constant(bytes({}, {zero}))}; }
  std::vector<ValueId> step(float scale, int zero) { return {net.number(scale), net.constant(bytes({}, {zero}))}; }
  std::vector<ValueId> first() { return codes(x, 0.02f, 110); }
  std::vector<ValueId> second() { return codes(y, 0.03f, 7); }

  static std::vector<ValueId> all(std::initializer_list<std::vector<ValueId>> lists) {
    std::vector<ValueId> out;
    for (const auto& l : lists) out.insert(out.end(), l.begin(), l.end());
    return out;
  }
  /// With and without fusions; codes at most one step away.
  void expect(const std::string& op, const std::vector<ValueId>& inputs, Attributes attributes, const Tensor& want,
              std::string domain = kMicrosoft) {
    net.output(net.edit().add({.op = op, .domain = std::move(domain), .attributes = std::move(attributes)}, inputs));
    for (const bool fuse : {true, false}) {
      SCOPED_TRACE(op + (fuse ? ", fused" : ", by itself"));
      Agreement agreement;
      agreement.compare(Session(net.graph(), {.fetches = {}, .taps = {}, .fuse = fuse}).run(feeds)[0], want, 1e-6);
    }
  }
};

// ONNX Runtime 1.32 gave these results: inputs and attributes as here, one node a model, opset 17.
TEST(QuantizedOperator, SumsAndProductsAreOnnxRuntimes) {
  Single sum, product;
  sum.expect("QLinearAdd", Single::all({sum.first(), sum.second(), sum.step(0.04f, 100)}), {},
             bytes({1, 2, 3, 3}, {178, 80, 255, 255, 206, 184, 169, 255, 213, 188, 254, 167, 255, 100, 174, 192, 255, 239}));
  product.expect("QLinearMul", Single::all({product.first(), product.second(), product.step(0.05f, 128)}), {},
                 bytes({1, 2, 3, 3}, {80, 111, 255, 255, 208, 0, 126, 255, 216, 0, 236, 146, 255, 125, 155, 154, 255, 191}));
}

TEST(QuantizedOperator, ConcatenationsAndChoicesAreOnnxRuntimes) {
  Single concat, where;
  concat.expect("QLinearConcat", Single::all({concat.step(0.03f, 20), concat.first(), concat.second()}), {{"axis", int64_t{1}, {}}},
                bytes({1, 4, 3, 3}, {0,   0,  112, 70,  114, 0,   19,  107, 67,  0,   55,  97, 83,  8,  100, 33,  77,  41,
                                     145, 40, 248, 255, 67,  185, 113, 255, 123, 184, 190, 33, 192, 32, 39,  129, 255, 184}));
  Tensor condition(DType::Bool, {1, 2, 3, 3});
  for (int64_t i = 0; i < 18; ++i) condition.mutable_data<bool>()[i] = kX.data<uint8_t>()[i] > 128;
  where.expect("QLinearWhere", Single::all({{where.net.constant(condition)}, where.first(), where.second(), where.step(0.03f, 20)}), {},
               bytes({1, 2, 3, 3}, {145, 40, 112, 70, 114, 185, 113, 107, 67, 184, 55, 97, 83, 32, 100, 33, 77, 41}));
}

TEST(QuantizedOperator, PoolingsAreOnnxRuntimes) {
  Single global, average;
  global.expect("QLinearGlobalAveragePool", Single::all({global.first(), global.step(0.01f, 120)}), {{"channels_last", int64_t{0}, {}}},
                bytes({1, 2, 1, 1}, {203, 216}));
  average.expect("QLinearAveragePool", Single::all({average.first(), average.step(0.01f, 120)}),
                 {{"kernel_shape", std::vector<int64_t>{2, 2}, {}}, {"strides", std::vector<int64_t>{1, 1}, {}}},
                 bytes({1, 2, 2, 2}, {176, 184, 255, 252, 150, 255, 210, 230}));
}

TEST(QuantizedOperator, FunctionsAreOnnxRuntimes) {
  Single sigmoid, leaky, softmax;
  sigmoid.expect("QLinearSigmoid", Single::all({sigmoid.first(), sigmoid.step(1 / 256.0f, 0)}), {},
                 bytes({1, 2, 3, 3}, {88, 50, 241, 209, 242, 44, 125, 239, 206, 51, 190, 233, 222, 105, 235, 153, 216, 168}));
  leaky.expect("QLinearLeakyRelu", Single::all({leaky.first(), leaky.step(0.015f, 60)}), {{"alpha", 0.1f, {}}},
               bytes({1, 2, 3, 3}, {56, 51, 244, 160, 248, 49, 60, 235, 155, 51, 131, 213, 185, 58, 220, 87, 173, 103}));
  softmax.expect("QLinearSoftmax", Single::all({softmax.first(), softmax.step(1 / 256.0f, 0)}),
                 {{"axis", int64_t{-1}, {}}, {"opset", int64_t{13}, {}}},
                 bytes({1, 2, 3, 3}, {8, 4, 244, 53, 200, 2, 13, 187, 56, 5, 56, 195, 92, 10, 154, 43, 158, 55}));
}

TEST(QuantizedOperator, ConvolutionsAndProductsAreOnnxRuntimes) {
  Single conv, product, gemm, real;
  const Tensor kernel = bytes({2, 2, 2, 2}, {222, 218, 173, 44, 145, 217, 12, 173, 68, 125, 35, 223, 20, 70, 59, 56});
  const auto columns = [](Net& net, int first, int second) {
    return std::vector<ValueId>{net.constant(Tensor::of<float>({2}, {0.01f, 0.02f})), net.constant(bytes({2}, {first, second}))};
  };
  conv.expect("QLinearConv",
              Single::all({conv.first(),
                           {conv.net.constant(kernel)},
                           columns(conv.net, 128, 100),
                           conv.step(0.1f, 100),
                           {conv.net.constant(Tensor::of<int32_t>({2}, {300, -500}))}}),
              {{"pads", std::vector<int64_t>{0, 1, 1, 0}, {}}},
              bytes({1, 2, 3, 3}, {78, 49, 175, 133, 121, 117, 104, 140, 147, 123, 148, 0, 90, 121, 45, 95, 95, 57}), "");
  product.expect("QLinearMatMul",
                 Single::all({product.first(), product.codes(product.net.constant(bytes({3, 2}, {95, 190, 63, 139, 62, 122})), 0.01f, 99),
                              product.step(0.03f, 100)}),
                 {}, bytes({1, 2, 3, 2}, {84, 83, 84, 171, 51, 145, 61, 90, 72, 171, 71, 140}), "");
  const Tensor weights = bytes({9, 2}, {6, 61, 123, 72, 191, 108, 97, 96, 123, 9, 129, 160, 194, 101, 73, 205, 4, 16});
  const Tensor bias = Tensor::of<int32_t>({2}, {1000, -2000});
  for (Single* s : {&gemm, &real}) {
    const ValueId rows = s->net.add("Reshape", {s->x, s->net.integers({2, 9})});
    std::vector<ValueId> inputs = s->codes(rows, 0.02f, 110);
    inputs.push_back(s->net.constant(weights));
    const auto scales = s == &gemm ? s->step(0.01f, 130) : columns(s->net, 130, 99);
    inputs.insert(inputs.end(), scales.begin(), scales.end());
    inputs.push_back(s->net.constant(bias));
    if (s == &gemm) {
      const auto end = s->step(0.1f, 90);
      inputs.insert(inputs.end(), end.begin(), end.end());
      s->expect("QGemm", inputs, {{"alpha", 1.0f, {}}}, bytes({2, 2}, {78, 52, 101, 94}));
    } else {
      s->expect("QGemm", inputs, {}, Tensor::of<float>({2, 2}, {-1.2082f, -2.948f, 1.1014f, 6.1112f}));
    }
  }
}

/// QLinearConv, in front of it perhaps a Pad of codes, behind it perhaps a QLinearAdd.
TEST(QuantizedOperator, ConvolutionsJoinPadsAndResiduals) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 150; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    Net net;
    const int64_t groups = r.pick<int64_t>({1, 1, 2, 8}), per_group = groups == 8 ? 1 : r.in(1, 5),
                  columns = groups * (groups == 8 ? 1 : r.in(1, 6));
    const Shape shape{r.in(1, 2), groups * per_group, r.in(3, 8), r.in(3, 8)};
    Step in = random_step(r, 0.02f), out = random_step(r, 0.05f), sum = random_step(r, 0.07f);
    in.has_zero = out.has_zero = sum.has_zero = true;
    out.type = sum.type;
    out.zero = static_cast<int32_t>(r.in(cpu::least_of(out.type), cpu::least_of(out.type) + 255));
    const ValueId x = net.input(in.type, shape);
    Feeds feeds{{x, random_codes(r, in.type, shape)}};
    const auto zero_of = [&](const Step& s) { return net.constant(zero_tensor(s.type, s.zero)); };
    ValueId value = x;
    std::string steps = "QLinearConv";
    const bool pad = r.chance(2), matching = !r.chance(4), residual = r.chance(2);
    Shape padded = shape;
    if (pad) {
      const std::vector<int64_t> pads{0, 0, r.in(0, 2), r.in(0, 2), 0, 0, r.in(0, 2), r.in(0, 2)};
      for (size_t i : {2u, 3u}) padded[i] += pads[i] + pads[i + 4];
      value = net.add("Pad", {x, net.integers(pads), matching ? zero_of(in) : net.constant(zero_tensor(in.type, in.zero == 5 ? 6 : 5))});
      if (!matching) steps = "Pad " + steps;
    }
    const DType type = r.pick({DType::U8, DType::I8});
    const bool each = r.chance(2);
    const int64_t scales = each ? columns : 1;
    Tensor scale(DType::F32, each ? Shape{scales} : Shape{});
    for (int64_t i = 0; i < scales; ++i) scale.mutable_data<float>()[i] = r.real(0.001f, 0.02f);
    const Tensor bias = random_codes(r, DType::I8, {columns});
    std::vector<ValueId> inputs{value,
                                net.number(in.scale),
                                zero_of(in),
                                net.constant(random_codes(r, type, {columns, per_group, 3, 2})),
                                net.constant(scale),
                                net.constant(random_codes(r, type, scale.shape())),
                                net.number(out.scale),
                                zero_of(out)};
    if (r.chance(2)) inputs.push_back(net.constant(cast(bias, DType::I32)));
    value = net.edit().add(
        {.op = "QLinearConv", .attributes = {{"group", groups, {}}, {"strides", std::vector<int64_t>{1, r.in(1, 2)}, {}}}}, inputs);
    if (residual) {
      const int64_t stride = net.graph().node(net.graph().value(value).producer).ints("strides")[1];
      const Step other = random_step(r, 0.03f);
      const Shape made{shape[0], columns, padded[2] - 2, (padded[3] - 2) / stride + 1};
      const ValueId y = net.input(other.type, made);
      feeds[y] = random_codes(r, other.type, made);
      const std::vector<ValueId> a{value, net.number(out.scale), zero_of(out)}, b{y, net.number(other.scale), zero_of(other)};
      std::vector<ValueId> terms = r.chance(2) ? Single::all({a, b}) : Single::all({b, a});
      terms.insert(terms.end(), {net.number(sum.scale), zero_of(sum)});
      value = net.edit().add({.op = "QLinearAdd", .domain = kMicrosoft}, terms);
    }
    net.output(value);
    (void)expect_fused(net, feeds, steps, agreement);
    if (HasFatalFailure()) return;
  }
  agreement.expect_rare();
}

TEST(QuantizedOperator, WhatIsNoOperatorOnCodesIsNamed) {
  Net net;
  const ValueId x = net.input(DType::U8, {2});
  net.output(net.edit().add({.op = "QLinearReduceSum", .domain = kMicrosoft}, {x}));
  try {
    Session session(net.graph());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Unsupported);
    EXPECT_NE(std::string(e.what()).find("QLinearReduceSum"), std::string::npos);
  }
}

}  // namespace
}  // namespace infopt::test
