// Products of two tensors of codes, none of them constant: between Q/DQ, dynamically quantized, and as int32 sums.
#include "tests/runtime/fusion_harness.h"

namespace infopt::test {
namespace {

/// Shapes that NumPy's rules let multiply.
std::pair<Shape, Shape> random_shapes(Random& r, int64_t k) {
  Shape a, b;
  for (int64_t i = r.in(0, 2); i > 0; --i) {
    const int64_t d = r.in(1, 4), which = r.in(0, 3);
    a.push_back(which == 0 ? 1 : d);
    b.push_back(which == 1 ? 1 : d);
  }
  if (r.chance(4)) (r.chance(2) ? a : b).clear();
  a.insert(a.end(), {r.pick<int64_t>({1, r.in(2, 20), r.in(21, 60)}), k});
  b.insert(b.end(), {k, r.pick<int64_t>({1, r.in(2, 20), r.in(21, 140)})});
  if (r.chance(10)) a = {k};
  else if (r.chance(10)) b = {k};
  return {a, b};
}

TEST(ActivationProductFusion, AgreesWithTheFloatReading) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    Net net;
    const int64_t k = r.pick<int64_t>({r.in(1, 9), r.in(10, 130)});
    const auto [a_shape, b_shape] = random_shapes(r, k);
    const Step a = random_step(r, 0.02f), b = random_step(r, 0.03f), out = random_step(r, 0.01f * static_cast<float>(k));
    const ValueId x = net.input(a.type, a_shape), y = net.input(b.type, b_shape);
    ValueId value = net.add("MatMul", {net.dequantize(x, a), net.dequantize(y, b)});
    if (r.chance(3)) value = net.add("Relu", {value});
    const bool codes = !r.chance(3), table = codes && r.chance(3);
    if (codes) value = net.quantize(value, out);
    if (table) value = net.quantize(net.add("Mul", {net.dequantize(value, out), net.number(0.125f)}), random_step(r, out.scale / 8));
    net.output(value);
    const Feeds feeds{{x, random_codes(r, a.type, a_shape)}, {y, random_codes(r, b.type, b_shape)}};
    (void)expect_fused(net, feeds, "MatMul", agreement);
    if (HasFatalFailure()) return;
  }
  agreement.expect_rare();
}

// numpy: a = [[[1,2],[3,4]],[[5,6],[7,8]]] − 3, b = [[10,20],[30,40]] − 25 and its double; (a·0.5) @ (b·0.25)
TEST(ActivationProductFusion, AgreesWithNumpy) {
  Net net;
  const Step a{DType::U8, 0.5f, 3}, b{DType::I8, 0.25f, 25};
  const ValueId x = net.input(DType::U8, {2, 2, 2}), y = net.input(DType::I8, {2, 2, 2});
  net.output(net.add("MatMul", {net.dequantize(x, a), net.dequantize(y, b)}));
  const Feeds feeds{{x, Tensor::of<uint8_t>({2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8})},
                    {y, Tensor::of<int8_t>({2, 2, 2}, {10, 20, 30, 40, 20, 40, 60, 80})}};
  const auto got = expect_fused(net, feeds, "MatMul");
  EXPECT_EQ(to_vector<double>(got[0]), (std::vector<double>{3.125, -0.625, 0.625, 1.875, 11.875, 24.375, 19.375, 41.875}));
}

/// 40,000 products of 255·255 leave int32.
TEST(ActivationProductFusion, DepthsBeyond32BitsStayRight) {
  Net net;
  Agreement agreement;
  const Step a{DType::U8, 0.01f, 0}, b{DType::U8, 0.01f, 0}, out{DType::U8, 2000.0f, 10};
  const ValueId x = net.input(DType::U8, {2, 40000}), y = net.input(DType::U8, {40000, 3});
  Tensor most(DType::U8, {2, 40000}), columns(DType::U8, {40000, 3});
  std::fill_n(most.mutable_data<uint8_t>(), most.size(), uint8_t{255});
  for (int64_t i = 0; i < columns.size(); ++i) columns.mutable_data<uint8_t>()[i] = static_cast<uint8_t>(i % 3 * 127);
  net.output(net.add("MatMul", {net.dequantize(x, a), net.dequantize(y, b)}));
  net.output(net.quantize(net.add("MatMul", {net.dequantize(x, a), net.dequantize(y, b)}), out));
  const auto got = expect_fused(net, {{x, most}, {y, columns}}, "MatMul MatMul", agreement);
  EXPECT_NEAR(to_vector<double>(got[0])[2], 255 * 254 * 4.0, 1);
  EXPECT_EQ(to_vector<double>(got[1])[2], 10 + 130);
}

/// DynamicQuantizeLinear on both sides.
TEST(ActivationProductFusion, DynamicOnesGiveTheNumbersOfTheirParts) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    Net net;
    const auto [a_shape, b_shape] = random_shapes(r, r.in(1, 40));
    const ValueId x = net.input(DType::F32, a_shape), y = net.input(DType::F32, b_shape);
    Feeds feeds;
    for (const auto& [v, shape] : {std::pair(x, a_shape), {y, b_shape}}) {
      Tensor t(DType::F32, shape);
      for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(-2, 3);
      feeds[v] = t;
    }
    const auto& a = net.graph().node(net.add_node("DynamicQuantizeLinear", {x}, 3)).outputs;
    const auto& b = net.graph().node(net.add_node("DynamicQuantizeLinear", {y}, 3)).outputs;
    const ValueId cast = net.add("Cast", {net.add("MatMulInteger", {a[0], b[0], a[2], b[2]})}, {{"to", int64_t{1}, {}}});
    ValueId value = net.add("Mul", {cast, net.add("Mul", {a[1], b[1]})});
    if (r.chance(2)) value = net.add("Relu", {value});
    net.output(value);
    const auto got = expect_fused(net, feeds, "DynamicQuantizeLinear DynamicQuantizeLinear MatMulInteger", agreement);
    if (HasFatalFailure()) return;
    EXPECT_EQ(to_vector<double>(got[0]), to_vector<double>(run_plain(net.graph(), feeds)[0]));
  }
}

/// MatMulInteger by itself, its right side constant or not, zero points of every form.
TEST(ActivationProductFusion, SumsAreExact) {
  for (unsigned seed = 0; seed < 120; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    Net net;
    const auto [a_shape, b_shape] = random_shapes(r, r.in(1, 70));
    const DType a = r.pick({DType::U8, DType::I8}), b = r.pick({DType::U8, DType::I8});
    const ValueId x = net.input(a, a_shape);
    Feeds feeds{{x, random_codes(r, a, a_shape)}};
    std::vector<ValueId> inputs{x, kNone};
    const Tensor right = random_codes(r, b, b_shape);
    if (r.chance(2)) inputs[1] = net.constant(right);
    else feeds[inputs[1] = net.input(b, b_shape)] = right;
    if (r.chance(2))
      inputs.push_back(net.constant(random_codes(r, a, a_shape.size() > 1 && r.chance(3) ? Shape{a_shape[a_shape.size() - 2]} : Shape{})));
    if (inputs.size() == 3 && r.chance(2))
      inputs.push_back(net.constant(random_codes(r, b, b_shape.size() > 1 && r.chance(2) ? Shape{b_shape.back()} : Shape{})));
    net.output(net.add("MatMulInteger", inputs));
    expect_same_bits(Session(net.graph()).run(feeds), run_plain(net.graph(), feeds));
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace infopt::test
