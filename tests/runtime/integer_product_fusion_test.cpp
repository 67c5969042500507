// DequantizeLinear → MatMul or Gemm → … → QuantizeLinear as one integer product, against float and the sums in double.
#include "tests/runtime/fusion_harness.h"

namespace infopt::test {
namespace {

enum class Bias { None, Steps, StepsWithZero, OtherSteps, Real, RealRow, RealScalar };

/// A random product and everything around it.
struct ProductCase {
  bool gemm = false, transposed = false;
  int64_t k = 1, n = 1;
  Shape x;
  Step input;
  Tensor codes, weights;
  std::vector<float> scales;   ///< one, or one a column
  std::vector<int32_t> zeros;  ///< none, or as many
  Bias bias = Bias::None;
  std::vector<int32_t> bias_codes;
  std::vector<float> bias_scales, bias_reals;
  bool relu = false;
  double size = 1;  ///< of a result

  explicit ProductCase(Random& r) {
    gemm = r.chance(2);
    transposed = gemm && r.chance(2);
    k = r.pick<int64_t>({r.in(1, 9), r.in(10, 200)});
    n = r.pick<int64_t>({r.in(1, 9), r.in(10, 150)});
    for (int64_t i = gemm ? 1 : r.in(0, 3); i > 0; --i) x.push_back(r.chance(20) ? 0 : r.in(1, 5));
    x.push_back(k);
    input = random_step(r, r.real(0.01f, 0.1f));
    codes = random_codes(r, input.type, x);
    const DType type = r.pick({DType::I8, DType::I8, DType::U8});
    weights = random_codes(r, type, transposed ? Shape{n, k} : Shape{k, n});
    const int64_t count = r.chance(2) ? n : 1;
    for (int64_t i = 0; i < count; ++i) scales.push_back(r.real(0.002f, 0.02f));
    if (type == DType::U8 ? !r.chance(5) : r.chance(3))
      for (int64_t i = 0; i < count; ++i)
        zeros.push_back(type == DType::U8 ? static_cast<int32_t>(r.in(0, 255)) : static_cast<int32_t>(r.in(-20, 20)));
    size = 5000.0 * std::sqrt(static_cast<double>(k)) * static_cast<double>(input.scale) * 0.01;
    if (gemm) offset(r);
    relu = r.chance(3);
  }

  void offset(Random& r) {
    bias = r.pick({Bias::None, Bias::Steps, Bias::StepsWithZero, Bias::OtherSteps, Bias::Real, Bias::RealRow, Bias::RealScalar});
    for (float s : scales) bias_scales.push_back(bias == Bias::OtherSteps ? 0.00137f : input.scale * s);
    for (int64_t i = 0; i < (bias == Bias::RealScalar ? 1 : n); ++i) {
      bias_reals.push_back(r.real(-1, 1) * static_cast<float>(size));
      bias_codes.push_back(static_cast<int32_t>(bias_reals.back() / bias_scales[scales.size() == 1 ? 0 : static_cast<size_t>(i)]));
    }
  }

  ValueId bias_in(Net& net) const {
    switch (bias) {
      case Bias::Real: return net.constant(Tensor::vector(bias_reals));
      case Bias::RealRow: return net.constant(Tensor::vector(bias_reals).reshaped({1, n}));
      case Bias::RealScalar: return net.number(bias_reals[0]);
      default: break;
    }
    const bool each = scales.size() > 1;
    std::vector<ValueId> in{net.constant(Tensor::vector(bias_codes)),
                            net.constant(each ? Tensor::vector(bias_scales) : Tensor::scalar(bias_scales[0]))};
    if (bias == Bias::StepsWithZero) in.push_back(net.constant(each ? Tensor::zeros(DType::I32, {n}) : Tensor::scalar<int32_t>(0)));
    return net.add("DequantizeLinear", in, {{"axis", int64_t{0}, {}}});
  }

  ValueId build(Net& net, Random& r, ValueId given) const {
    std::vector<ValueId> w{net.constant(weights),
                           net.constant(scales.size() == 1 && n != 1 ? Tensor::scalar(scales[0]) : Tensor::vector(scales))};
    if (!zeros.empty()) {
      const Tensor t = cast(Tensor::vector(zeros), weights.dtype());
      w.push_back(net.constant(zeros.size() == 1 && n != 1 ? t.reshaped({}) : t));
    }
    const int64_t axis = transposed ? 0 : 1;
    std::vector<ValueId> in{net.dequantize(given, input), net.add("DequantizeLinear", w, {{"axis", r.chance(2) ? axis : axis - 2, {}}})};
    if (bias != Bias::None) in.push_back(bias_in(net));
    ValueId y = gemm ? net.add("Gemm", in, {{"transB", int64_t{transposed}, {}}}) : net.add("MatMul", in);
    if (relu) y = net.add("Relu", {y});
    return y;
  }

  double weight_real(int64_t row, int64_t column) const {
    const size_t c = scales.size() == 1 ? 0 : static_cast<size_t>(column);
    const auto byte = static_cast<uint8_t>(weights.raw()[transposed ? column * k + row : row * n + column]);
    return (cpu::code_value(byte, weights.dtype()) - (zeros.empty() ? 0 : zeros[c])) * static_cast<double>(scales[c]);
  }

  std::vector<double> reference() const {
    const auto reals = reals_of(codes, input);
    std::vector<double> y;
    for (int64_t row = 0; row < codes.size() / k; ++row)
      for (int64_t c = 0; c < n; ++c) {
        const size_t at = bias_reals.size() == 1 ? 0 : static_cast<size_t>(c), step = scales.size() == 1 ? 0 : static_cast<size_t>(c);
        double sum = 0;
        if (bias >= Bias::Real) sum = static_cast<double>(bias_reals[at]);
        else if (bias != Bias::None) sum = bias_codes[at] * static_cast<double>(bias_scales[step]);
        for (int64_t i = 0; i < k; ++i) sum += reals[static_cast<size_t>(row * k + i)] * weight_real(i, c);
        y.push_back(relu ? std::max(sum, 0.0) : sum);
      }
    return y;
  }
};

TEST(IntegerProductFusion, AgreesWithFloatAndWithTheSums) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 250; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    const ProductCase c(r);
    Net net(r.pick<int64_t>({13, 19, 21, 23}));
    const ValueId x = r.chance(2) ? net.input(c.input.type, c.x) : net.open_input(c.input.type);
    const ValueId real = c.build(net, r, x);
    const Step to = random_step(r, static_cast<float>(c.size) * r.real(0.02f, 0.06f));
    const bool quantized = !r.chance(3);
    net.output(quantized ? net.quantize(real, to) : real);
    const auto y = expect_fused(net, {{x, c.codes}}, c.gemm ? "Gemm" : "MatMul", agreement);
    if (HasFatalFailure()) return;
    Shape shape = c.x;
    shape.back() = c.n;
    ASSERT_EQ(y[0].shape(), shape);
    const auto got = to_vector<double>(y[0]), want = c.reference();
    double largest = 0;
    for (double v : want) largest = std::max(largest, std::fabs(v));
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_LE(std::fabs(got[i] - (quantized ? code_of(want[i], to) : want[i])), quantized ? 1 : 2e-6 * largest) << "element " << i;
    }
  }
  agreement.expect_rare();
}

TEST(IntegerProductFusion, EndsWithATable) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Random r(1000 + seed);
    const ProductCase c(r);
    Net net;
    const ValueId x = net.input(c.input.type, c.x);
    const Step first = random_step(r, static_cast<float>(c.size) * 0.03f);
    const ValueId real = net.dequantize(net.quantize(c.build(net, r, x), first), first);
    const ValueId y = r.chance(2) ? net.add("Gelu", {real}) : net.add("HardSwish", {real});
    net.output(net.quantize(y, random_step(r, first.scale * 1.3f)));
    (void)expect_fused(net, {{x, c.codes}}, c.gemm ? "Gemm" : "MatMul", agreement);
    if (HasFatalFailure()) return;
  }
  agreement.expect_rare(0.004);
}

TEST(IntegerProductFusion, LeavesAResidualToASumOfCodes) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    Random r(2000 + seed);
    const ProductCase c(r);
    Net net;
    const ValueId x = net.input(c.input.type, c.x);
    Shape shape = c.x;
    shape.back() = c.n;
    const Step first = random_step(r, static_cast<float>(c.size) * 0.03f), other = random_step(r, first.scale);
    const ValueId z = net.input(other.type, shape), real = net.dequantize(net.quantize(c.build(net, r, x), first), first);
    net.output(net.quantize(net.add("Add", {real, net.dequantize(z, other)}), random_step(r, 2 * first.scale)));
    (void)expect_fused(net, {{x, c.codes}, {z, random_codes(r, other.type, shape)}}, c.gemm ? "Gemm Add" : "MatMul Add");
    if (HasFatalFailure()) return;
  }
}

/// What a product without terms gives: its bias, if any.
TEST(IntegerProductFusion, SumsNothing) {
  for (const bool gemm : {false, true})
    for (const bool relu : {false, true}) {
      Net net;
      const ValueId x = net.input(DType::U8, {2, 0}),
                    w = net.add("DequantizeLinear", {net.constant(Tensor(DType::I8, {0, 3})), net.number(0.1f)});
      std::vector<ValueId> in{net.dequantize(x, {DType::U8, 0.1f, 3}), w};
      if (gemm) in.push_back(net.constant(Tensor::vector<float>({1, -2, 3})));
      ValueId y = net.add(gemm ? "Gemm" : "MatMul", in);
      if (relu) y = net.add("Relu", {y});
      net.output(net.quantize(y, {DType::U8, 0.5f, 10}));
      const auto got = Session(net.graph()).run(Feeds{{x, Tensor(DType::U8, {2, 0})}})[0];
      const std::vector<int64_t> want = !gemm  ? std::vector<int64_t>(6, 10)
                                        : relu ? std::vector<int64_t>{12, 10, 16, 12, 10, 16}
                                               : std::vector<int64_t>{12, 6, 16, 12, 6, 16};
      EXPECT_EQ(to_vector<int64_t>(got), want);
    }
}

/// Gemm's C as a column isn't a bias for each column of the result, though it may have as many elements.
TEST(IntegerProductFusion, RefusesOtherOperandsThanItKnows) {
  Random r(1);
  for (const int kind : {0, 1, 2, 3, 4, 5}) {
    SCOPED_TRACE(kind);
    Net net;
    const ValueId x = net.input(DType::U8, {3, 3}), codes = net.constant(random_codes(r, DType::I8, {3, 3}));
    const ValueId scales = kind == 1 ? net.constant(Tensor::vector<float>({0.01f, 0.02f, 0.03f})) : net.number(0.01f);
    const ValueId w = net.add("DequantizeLinear", {codes, scales}, {{"axis", int64_t{0}, {}}});
    std::vector<ValueId> in{net.dequantize(x, {DType::U8, 0.1f, 3}), w};
    Attributes attributes;
    if (kind == 0) in.push_back(net.constant(Tensor::of<float>({3, 1}, {1, 2, 3})));
    if (kind == 2) attributes = {{"transA", int64_t{1}, {}}};
    if (kind == 3) attributes = {{"alpha", 0.5f, {}}};
    if (kind == 4) in.push_back(net.input(DType::F32, {3})), attributes = {};
    if (kind == 5) in.push_back(net.number(1)), attributes = {{"beta", 0.5f, {}}};
    net.output(net.quantize(net.add("Gemm", in, attributes), {DType::U8, 0.05f, 100}));
    Feeds feeds{{x, random_codes(r, DType::U8, {3, 3})}};
    if (kind == 4) feeds[in.back()] = Tensor::vector<float>({1, 2, 3});
    expect_kept(net, feeds);
  }
}

}  // namespace
}  // namespace infopt::test
