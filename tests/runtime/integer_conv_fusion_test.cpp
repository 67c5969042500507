// DequantizeLinear → Conv → … → QuantizeLinear as one integer convolution, against float and ONNX's formula in double.
#include "tests/runtime/fusion_harness.h"

namespace infopt::test {
namespace {

enum class Bias { None, Steps, StepsWithZero, OtherSteps, Real };
enum class Post { None, Relu, Clip, Relu6 };

/// A random convolution, its weights and everything around it.
struct ConvCase {
  Shape x, w;
  int64_t groups = 1;
  std::vector<int64_t> strides, dilations, pads;
  std::string auto_pad;
  Step input;
  DType weight_type = DType::I8;
  std::vector<float> weight_scales;   ///< one, or one a channel
  std::vector<int32_t> weight_zeros;  ///< none, or as many
  int64_t weight_axis = 0;
  Bias bias = Bias::None;
  std::vector<int32_t> bias_codes;
  std::vector<float> bias_scales, bias_reals;
  Post post = Post::None;
  float low = 0, high = 0;
  Tensor codes, weights;
  double size = 1;  ///< of a result

  explicit ConvCase(Random& r) {
    geometry(r);
    input = random_step(r, r.real(0.01f, 0.1f));
    codes = random_codes(r, input.type, x);
    weigh(r);
    offset(r);
    post = r.pick({Post::None, Post::Relu, Post::Clip, Post::Relu6});
    low = post == Post::Clip ? r.real(-1, 0) * static_cast<float>(size) : 0;
    high = post == Post::Clip ? r.real(0, 1) * static_cast<float>(size) : 6;
  }

  void geometry(Random& r) {
    const size_t spatial = static_cast<size_t>(r.pick<int64_t>({2, 2, 2, 1, 3}));
    const int64_t kind = r.in(0, 3);
    groups = kind == 0 ? r.in(1, 70) : kind == 1 ? r.in(2, 5) : 1;
    const int64_t channels = kind == 0 ? 1 : r.in(1, kind == 1 ? 9 : 40),
                  columns = kind == 0 ? r.pick<int64_t>({1, 1, 2}) : r.in(1, kind == 1 ? 9 : 70);
    x = {r.chance(12) ? 0 : r.in(1, 3), channels * groups};
    w = {columns * groups, channels};
    std::vector<int64_t> begin, end;
    auto_pad = r.chance(4) ? r.pick({"SAME_UPPER", "SAME_LOWER", "VALID"}) : "NOTSET";
    for (size_t i = 0; i < spatial; ++i) {
      w.push_back(r.pick<int64_t>({1, 2, 3, 3}));
      strides.push_back(r.pick<int64_t>({1, 1, 2, 3}));
      dilations.push_back(r.pick<int64_t>({1, 1, 2}));
      begin.push_back(r.in(0, 2));
      end.push_back(r.in(0, 2));
      const int64_t extent = (w.back() - 1) * dilations.back() + 1, pads_given = auto_pad == "NOTSET" ? begin.back() + end.back() : 0;
      x.push_back(std::max<int64_t>(1, extent - pads_given) + r.in(0, spatial == 3 ? 4 : 9));
    }
    pads = begin;
    pads.insert(pads.end(), end.begin(), end.end());
  }

  void weigh(Random& r) {
    weight_type = r.pick({DType::I8, DType::I8, DType::U8});
    weights = random_codes(r, weight_type, w);
    const int64_t n = r.chance(2) ? w[0] : 1;
    for (int64_t i = 0; i < n; ++i) weight_scales.push_back(r.real(0.002f, 0.02f));
    if (weight_type == DType::U8 ? !r.chance(5) : r.chance(3))
      for (int64_t i = 0; i < n; ++i)
        weight_zeros.push_back(weight_type == DType::U8 ? r.pick<int32_t>({128, 128, static_cast<int32_t>(r.in(0, 255))})
                                                        : static_cast<int32_t>(r.in(-20, 20)));
    weight_axis = r.chance(2) ? 0 : -static_cast<int64_t>(w.size());
    size = 5000.0 * std::sqrt(static_cast<double>(std::max<int64_t>(1, weights.size() / w[0]))) * static_cast<double>(input.scale) * 0.01;
  }

  void offset(Random& r) {
    bias = r.pick({Bias::None, Bias::Steps, Bias::StepsWithZero, Bias::OtherSteps, Bias::Real});
    const bool each = weight_scales.size() > 1;
    for (size_t i = 0; i < (each ? static_cast<size_t>(w[0]) : 1); ++i)
      bias_scales.push_back(bias == Bias::OtherSteps ? 0.00137f : input.scale * weight_scales[i]);
    for (int64_t i = 0; i < w[0]; ++i) {
      bias_reals.push_back(r.real(-1, 1) * static_cast<float>(size));
      bias_codes.push_back(static_cast<int32_t>(bias_reals.back() / bias_scales[each ? static_cast<size_t>(i) : 0]));
    }
  }

  Attributes attributes() const {
    Attributes a{{"strides", strides, {}}, {"dilations", dilations, {}}, {"group", groups, {}}};
    if (auto_pad == "NOTSET") a.push_back({"pads", pads, {}});
    else a.push_back({"auto_pad", auto_pad, {}});
    return a;
  }

  ValueId weights_in(Net& net) const {
    std::vector<ValueId> in{net.constant(weights), net.constant(weight_scales.size() == 1 && w[0] != 1 ? Tensor::scalar(weight_scales[0])
                                                                                                       : Tensor::vector(weight_scales))};
    if (!weight_zeros.empty()) {
      const Tensor zeros = cast(Tensor::vector(weight_zeros), weight_type);
      in.push_back(net.constant(weight_zeros.size() == 1 && w[0] != 1 ? zeros.reshaped({}) : zeros));
    }
    return net.add("DequantizeLinear", in, {{"axis", weight_axis, {}}});
  }

  ValueId bias_in(Net& net) const {
    if (bias == Bias::Real) return net.constant(Tensor::vector(bias_reals));
    const bool each = weight_scales.size() > 1;
    std::vector<ValueId> in{net.constant(Tensor::vector(bias_codes)),
                            net.constant(each ? Tensor::vector(bias_scales) : Tensor::scalar(bias_scales[0]))};
    if (bias == Bias::StepsWithZero) in.push_back(net.constant(each ? Tensor::zeros(DType::I32, {w[0]}) : Tensor::scalar<int32_t>(0)));
    return net.add("DequantizeLinear", in, {{"axis", int64_t{0}, {}}});
  }

  /// The convolution with its activation, from a graph input of codes.
  ValueId build(Net& net, ValueId given) const {
    std::vector<ValueId> in{net.dequantize(given, input), weights_in(net)};
    if (bias != Bias::None) in.push_back(bias_in(net));
    const ValueId y = net.add("Conv", in, attributes());
    switch (post) {
      case Post::None: return y;
      case Post::Relu: return net.add("Relu", {y});
      default: return net.add("Clip", {y, net.number(low), net.number(high)});
    }
  }

  double weight_real(int64_t n, int64_t at) const {
    const size_t c = weight_scales.size() == 1 ? 0 : static_cast<size_t>(n);
    const int32_t q = cpu::code_value(static_cast<uint8_t>(weights.raw()[at]), weight_type);
    return (q - (weight_zeros.empty() ? 0 : weight_zeros[c])) * static_cast<double>(weight_scales[c]);
  }
  double bias_real(int64_t n) const {
    const size_t c = static_cast<size_t>(n);
    if (bias == Bias::None) return 0;
    return bias == Bias::Real ? static_cast<double>(bias_reals[c])
                              : bias_codes[c] * static_cast<double>(bias_scales[bias_scales.size() == 1 ? 0 : c]);
  }

  /// ONNX's formula, element by element, over up to three spatial axes.
  std::vector<double> reference(Shape& shape) const {
    const size_t spatial = w.size() - 2;
    int64_t in[3] = {1, 1, 1}, kernel[3] = {1, 1, 1}, stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1}, before[3] = {0, 0, 0},
            out[3] = {1, 1, 1};
    shape = {x[0], w[0]};
    for (size_t i = 0; i < spatial; ++i) {
      const size_t a = i + 3 - spatial;
      in[a] = x[i + 2], kernel[a] = w[i + 2], stride[a] = strides[i], dilation[a] = dilations[i];
      const int64_t extent = (kernel[a] - 1) * dilation[a] + 1;
      int64_t after = 0;
      if (auto_pad == "NOTSET") before[a] = pads[i], after = pads[i + spatial];
      if (auto_pad.starts_with("SAME")) {
        const int64_t wanted = (in[a] + stride[a] - 1) / stride[a], total = std::max<int64_t>(0, (wanted - 1) * stride[a] + extent - in[a]);
        before[a] = auto_pad == "SAME_UPPER" ? total / 2 : (total + 1) / 2;
        after = total - before[a];
      }
      out[a] = (in[a] + before[a] + after - extent) / stride[a] + 1;
      shape.push_back(out[a]);
    }
    const auto reals = reals_of(codes, input);
    std::vector<double> y;
    const int64_t channels = w[1], columns = w[0] / groups, taps = kernel[0] * kernel[1] * kernel[2];
    for (int64_t at = 0; at < element_count(shape); ++at) {
      const int64_t o[3] = {at / (out[1] * out[2]) % out[0], at / out[2] % out[1], at % out[2]};
      const int64_t n = at / (out[0] * out[1] * out[2]) % w[0], image = at / (out[0] * out[1] * out[2] * w[0]);
      double sum = bias_real(n);
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t t = 0; t < taps; ++t) {
          const int64_t k[3] = {t / (kernel[1] * kernel[2]), t / kernel[2] % kernel[1], t % kernel[2]};
          int64_t place = image * x[1] + n / columns * channels + c;
          bool inside = true;
          for (int a = 0; a < 3; ++a) {
            const int64_t p = o[a] * stride[a] + k[a] * dilation[a] - before[a];
            inside = inside && p >= 0 && p < in[a];
            place = place * in[a] + p;
          }
          if (inside) sum += reals[static_cast<size_t>(place)] * weight_real(n, (n * channels + c) * taps + t);
        }
      if (post != Post::None) sum = std::max(sum, static_cast<double>(low));
      if (post == Post::Clip || post == Post::Relu6) sum = std::min(sum, static_cast<double>(high));
      y.push_back(sum);
    }
    return y;
  }
};

float output_scale(Random& r, const ConvCase& c) { return static_cast<float>(c.size) * r.real(0.02f, 0.06f); }

void expect_near(const Tensor& got, const std::vector<double>& want, const Shape& shape, const Step* step) {
  ASSERT_EQ(got.shape(), shape);
  const auto a = to_vector<double>(got);
  double largest = 0;
  for (double v : want) largest = std::max(largest, std::fabs(v));
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_LE(std::fabs(a[i] - (step ? code_of(want[i], *step) : want[i])), step ? 1 : 2e-6 * largest) << "element " << i;
  }
}

TEST(IntegerConvFusion, AgreesWithFloatAndWithTheFormula) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    const ConvCase c(r);
    Net net(r.pick<int64_t>({13, 19, 21, 23}));
    const ValueId x = net.input(c.input.type, c.x), real = c.build(net, x);
    const Step to = random_step(r, output_scale(r, c));
    const bool quantized = !r.chance(4);
    net.output(quantized ? net.quantize(real, to) : real);
    const auto y = expect_fused(net, {{x, c.codes}}, "Conv", agreement);
    if (HasFatalFailure()) return;
    Shape shape;
    const auto want = c.reference(shape);
    expect_near(y[0], want, shape, quantized ? &to : nullptr);
    if (HasFatalFailure()) return;
  }
  agreement.expect_rare();
}

/// Adds a residual behind the first rounding. `other` is codes.
ValueId with_residual(Net& net, Random& r, ValueId real, const Step& first, ValueId other, const Step& other_step, const Step& sum) {
  const ValueId a = net.dequantize(net.quantize(real, first), first), b = net.dequantize(other, other_step);
  const bool swapped = r.chance(2);
  ValueId y = net.add("Add", {swapped ? b : a, swapped ? a : b});
  if (r.chance(2)) y = net.add("Relu", {y});
  return net.quantize(y, sum);
}

TEST(IntegerConvFusion, TakesAResidualOfItsOwnShape) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 120; ++seed) {
    SCOPED_TRACE(seed);
    Random r(1000 + seed);
    const ConvCase c(r);
    Net net;
    const ValueId x = net.input(c.input.type, c.x), real = c.build(net, x);
    const Step first = random_step(r, output_scale(r, c)), other = random_step(r, first.scale * r.real(0.3f, 1.3f));
    const Step sum{first.type, first.scale * r.real(1.0f, 1.8f), static_cast<int32_t>(r.in(0, 255)) + cpu::least_of(first.type)};
    Shape shape;
    (void)c.reference(shape);
    const ValueId z = net.input(other.type, shape);
    net.output(with_residual(net, r, real, first, z, other, sum));
    (void)expect_fused(net, {{x, c.codes}, {z, random_codes(r, other.type, shape)}}, "Conv", agreement);
    if (HasFatalFailure()) return;
  }
  agreement.expect_rare(0.004);
}

TEST(IntegerConvFusion, TakesAResidualThatIsRepeated) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 120; ++seed) {
    SCOPED_TRACE(seed);
    Random r(2000 + seed);
    const ConvCase c(r);
    Net net;
    const ValueId x = net.input(c.input.type, c.x), real = c.build(net, x);
    const Step first = random_step(r, output_scale(r, c)), other = random_step(r, first.scale);
    const Step sum{first.type, first.scale * 1.5f, first.zero};
    Shape shape;
    (void)c.reference(shape);
    switch (r.in(0, 3)) {
      case 0: shape.insert(shape.begin(), 2); break;
      case 1: shape.erase(shape.begin(), shape.begin() + r.in(1, static_cast<int64_t>(shape.size()))); break;
      default:
        for (int64_t& d : shape) d = r.chance(2) ? 1 : d;
    }
    const ValueId z = net.input(other.type, shape);
    net.output(with_residual(net, r, real, first, z, other, sum));
    (void)expect_fused(net, {{x, c.codes}, {z, random_codes(r, other.type, shape)}}, "Conv", agreement);
    if (HasFatalFailure()) return;
  }
  agreement.expect_rare(0.004);
}

TEST(IntegerConvFusion, AddsTwoConvolutions) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    Random r(3000 + seed);
    const ConvCase c(r);
    Net net;
    const ValueId x = net.input(c.input.type, c.x), a = c.build(net, x), b = c.build(net, x);
    const Step first = random_step(r, output_scale(r, c)), sum{first.type, first.scale * 2, first.zero};
    net.output(with_residual(net, r, a, first, net.quantize(b, first), first, sum));
    (void)expect_fused(net, {{x, c.codes}}, "Conv Conv", agreement);
    if (HasFatalFailure()) return;
  }
  agreement.expect_rare(0.004);
}

TEST(IntegerConvFusion, EndsWithATable) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Random r(4000 + seed);
    const ConvCase c(r);
    Net net;
    const ValueId x = net.input(c.input.type, c.x);
    const Step first = random_step(r, output_scale(r, c));
    const ValueId real = net.dequantize(net.quantize(c.build(net, x), first), first);
    const bool swish = r.chance(2);
    ValueId y = net.add("Sigmoid", {real});
    if (swish) y = net.add("Mul", {real, y});
    net.output(net.quantize(y, random_step(r, swish ? first.scale * 1.2f : std::max(first.scale, 1.0f / 255))));
    (void)expect_fused(net, {{x, c.codes}}, "Conv", agreement);
    if (HasFatalFailure()) return;
  }
  agreement.expect_rare(0.004);
}

/// Sizes whose pads differ at the end only, seen one after the other by one session.
TEST(IntegerConvFusion, FollowsAutoPadWhereTheSizeChanges) {
  for (const char* auto_pad : {"SAME_UPPER", "SAME_LOWER"}) {
    for (int64_t kernel : {1, 2, 3, 5})
      for (int64_t stride : {1, 2, 3, 4}) {
        SCOPED_TRACE(testing::Message() << auto_pad << " kernel " << kernel << " stride " << stride);
        Random r(7);
        Net net;
        const ValueId x = net.open_input(DType::U8);
        const ValueId w = net.add("DequantizeLinear", {net.constant(random_codes(r, DType::I8, {3, 2, kernel})), net.number(0.01f)});
        const ValueId y = net.add("Conv", {net.dequantize(x, {DType::U8, 0.1f, 90}), w},
                                  {{"auto_pad", std::string(auto_pad), {}}, {"strides", std::vector<int64_t>{stride}, {}}});
        net.output(net.quantize(y, {DType::U8, 0.7f, 120}));
        const Graph& graph = net.graph();
        const Session fused(graph), plain(graph, {.fuse = false});
        for (int64_t size : {4, 5, 6, 3, 7, 1, 8, 2, 9, 5}) {
          const Tensor given = random_codes(r, DType::U8, {1, 2, size});
          Agreement agreement;
          agreement.compare(fused.run(Feeds{{x, given}})[0], plain.run(Feeds{{x, given}})[0]);
          if (HasFatalFailure()) return;
        }
      }
  }
}

/// A Pad of zeros between Q/DQ of one step, or of anything else.
TEST(IntegerConvFusion, TakesPadsOfZeros) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 80; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    Net net;
    const Shape shape{r.in(1, 2), 3, r.in(2, 7), r.in(2, 7)};
    const Step in = random_step(r, 0.02f), out = random_step(r, 0.2f), weight{DType::I8, 0.01f, 0};
    const ValueId x = net.input(in.type, shape);
    const int kind = static_cast<int>(r.in(0, 5));  // 0: another value; 1: another step behind; 2: around channels, too; else zeros
    std::vector<int64_t> pads{0, kind == 2 ? 1 : 0, r.in(0, 2), r.in(0, 2), 0, 0, r.in(1, 2), r.in(0, 2)};
    std::vector<ValueId> inputs{net.dequantize(x, in), net.integers(pads)};
    if (kind == 0 || r.chance(2)) inputs.push_back(net.number(kind == 0 ? 0.5f : 0.0f));
    Step behind = in;
    if (kind == 1) behind.scale = 0.025f;
    const ValueId padded = net.quantize(net.add("Pad", inputs), behind);
    const ValueId w = net.dequantize(net.constant(random_codes(r, DType::I8, {5, kind == 2 ? 4 : 3, 2, 3})), weight);
    Attributes attributes;
    if (r.chance(2)) attributes.push_back({"pads", std::vector<int64_t>{1, 1, 0, 1}, {}});
    else if (r.chance(3)) attributes.push_back({"auto_pad", std::string("SAME_UPPER"), {}});
    else attributes.push_back({"pads", std::vector<int64_t>{0, 1, 0, 1}, {}});
    net.output(net.quantize(net.add("Conv", {net.dequantize(padded, behind), w}, attributes), out));
    const Feeds feeds{{x, random_codes(r, in.type, shape)}};
    (void)expect_fused(net, feeds, kind <= 2 ? "DequantizeLinear Pad QuantizeLinear Conv" : "Conv", agreement);
    if (HasFatalFailure()) return;
  }
  agreement.expect_rare();
}

// ONNX Runtime's quantizer gives a channel of next to no weights a tiny scale and a bias that hardly fits 32 bits.
TEST(IntegerConvFusion, BiasesOfDeadChannelsThatLeaveTheSumsNoRoom) {
  Random r(41);
  Agreement agreement;
  for (int turn = 0; turn < 80; ++turn) {
    SCOPED_TRACE(turn);
    const int64_t columns = 24;
    const bool depthwise = r.chance(2);
    const Step in{DType::U8, 0.02f, r.pick<int32_t>({0, 120}), true}, out{r.pick({DType::U8, DType::I8}), 0.05f, r.pick<int32_t>({0, 7}), true};
    std::vector<float> scales, bias_scales;
    std::vector<int32_t> bias;
    for (int64_t c = 0; c < columns; ++c) {
      const bool dead = r.chance(3);
      const float real = r.chance(4) ? (static_cast<float>(r.in(-20, 150)) + 0.5f) * out.scale : r.real(-2, 9);  // some of them at a tie
      const float least = std::fabs(real) / (2147483000.0f * in.scale);
      scales.push_back(dead ? std::max(least, 1e-12f) : r.real(0.0005f, 0.002f));
      bias_scales.push_back(in.scale * scales.back());
      bias.push_back(static_cast<int32_t>(std::clamp(static_cast<double>(real) / bias_scales.back(), -2147483647.0, 2147483647.0)));
    }
    Net net;
    const Shape shape{1, depthwise ? columns : 6, 7, 7};
    const ValueId x = net.input(in.type, shape);
    const ValueId w = net.add("DequantizeLinear", {net.constant(random_codes(r, DType::I8, {columns, depthwise ? 1 : 6, 3, 3})), net.constant(Tensor::vector(scales))}, {{"axis", int64_t{0}, {}}});
    const ValueId b = net.add("DequantizeLinear", {net.constant(Tensor::vector(bias)), net.constant(Tensor::vector(bias_scales))}, {{"axis", int64_t{0}, {}}});
    ValueId y = net.add("Conv", {net.dequantize(x, in), w, b}, {{"group", depthwise ? columns : int64_t{1}, {}}});
    if (r.chance(2)) y = net.add("Clip", {y, net.number(0), net.number(r.real(1, 6))});
    net.output(net.quantize(y, out));
    const Graph& g = net.graph();
    ASSERT_EQ(steps_of(g), "Conv");
    const Feeds feeds{{x, random_codes(r, in.type, shape)}};
    agreement.compare(Session(g).run(feeds)[0], run_plain(g, feeds)[0]);
  }
  agreement.expect_rare(0.02);  // those at ties
}

}  // namespace
}  // namespace infopt::test
