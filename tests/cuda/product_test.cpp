// Products of floats on the device: MatMul, Gemm and what the fusion rules join with them.
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

/// What rounding to the type may change, relative to the largest magnitude.
double bound_of(DType type) { return type == DType::F16 ? 2e-3 : type == DType::BF16 ? 1.6e-2 : 1e-5; }

Tensor random_tensor(Random& r, DType type, const Shape& shape) {
  std::vector<float> v(static_cast<size_t>(element_count(shape)));
  const bool whole = is_integer(type);
  for (float& x : v) x = whole ? static_cast<float>(r.in(type == DType::U32 || type == DType::U64 ? 0 : -1000, 1000)) : r.real(-1, 1);
  return cast(Tensor::of<float>(shape, std::span<const float>(v)), type);
}

DType random_float(Random& r) { return r.pick({DType::F32, DType::F32, DType::F16, DType::BF16}); }

Shape random_lead(Random& r, size_t rank, const Shape& of) {
  Shape lead;
  for (size_t i = of.size() - std::min(rank, of.size()); i < of.size(); ++i) lead.push_back(r.chance(3) ? 1 : of[i]);
  return lead;
}

TEST(CudaMatMul, BroadcastsLeadingAxesAsTheCpuDoes) {
  Random r(11);
  for (int i = 0; i < 60; ++i) {
    const DType type = r.chance(3) ? r.pick({DType::F64, DType::I32, DType::I64, DType::U32, DType::U64}) : random_float(r);
    const Shape lead{r.in(1, 3), r.in(1, 4), r.in(1, 3)};
    const int64_t m = r.in(1, 9), k = r.in(1, 40), n = r.in(1, 19);
    Shape as = random_lead(r, static_cast<size_t>(r.in(0, 3)), lead), bs = random_lead(r, static_cast<size_t>(r.in(0, 3)), lead);
    if (as.empty() && r.chance(4)) as = {k};
    else as.insert(as.end(), {m, k});
    if (bs.empty() && r.chance(4)) bs = {k};
    else bs.insert(bs.end(), {k, n});
    SCOPED_TRACE(testing::Message() << name_of(type) << to_string(as) << to_string(bs));
    Net net;
    const ValueId a = net.input(type, as);
    const Tensor bt = random_tensor(r, type, bs);
    const bool constant = r.chance(2);
    const ValueId b = constant ? net.constant(bt) : net.input(type, bs);
    net.output(net.add("MatMul", {a, b}));
    Feeds feeds{{a, random_tensor(r, type, as)}};
    if (!constant) feeds[b] = bt;
    expect_as_cpu(net.graph(), feeds, bound_of(type));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(CudaMatMul, OfNothingIsZero) {
  for (const auto& [as, bs] : {std::pair<Shape, Shape>{{3, 0}, {0, 4}}, {{0, 5}, {5, 4}}, {{2, 3, 5}, {5, 0}}, {{2, 0, 3, 0}, {0, 2}}}) {
    Net net;
    const ValueId a = net.input(DType::F32, as), b = net.input(DType::F32, bs);
    net.output(net.add("MatMul", {a, b}));
    expect_as_cpu(net.graph(), {{a, Tensor::zeros(DType::F32, as)}, {b, Tensor::zeros(DType::F32, bs)}});
  }
}

TEST(CudaGemm, TakesEveryCombinationOfAttributes) {
  Random r(12);
  for (int i = 0; i < 60; ++i) {
    const DType type = r.chance(4) ? r.pick({DType::F64, DType::I32, DType::I64}) : random_float(r);
    const int64_t m = r.in(1, 20), k = r.in(r.chance(8) ? 0 : 1, 40), n = r.in(1, 40);
    const bool ta = r.chance(2), tb = r.chance(2), whole = is_integer(type);
    Net net;
    const Shape as = ta ? Shape{k, m} : Shape{m, k}, bs = tb ? Shape{n, k} : Shape{k, n};
    const ValueId a = net.input(type, as), b = net.input(type, bs);
    std::vector<ValueId> inputs{a, b};
    Feeds feeds{{a, random_tensor(r, type, as)}, {b, random_tensor(r, type, bs)}};
    if (r.chance(3) || r.chance(2)) {
      const Shape cs = r.pick<Shape>({{n}, {1, n}, {m, 1}, {m, n}, {1}, {}, {1, 1}});
      inputs.push_back(net.input(type, cs));
      feeds[inputs.back()] = random_tensor(r, type, cs);
    }
    const float alpha = whole ? r.pick<float>({1, 2}) : r.pick<float>({1, 1, 0.5f}), beta = whole ? r.pick<float>({1, 3}) : r.pick<float>({1, 1, 0, -0.25f});
    SCOPED_TRACE(testing::Message() << name_of(type) << to_string(as) << to_string(bs) << " alpha " << alpha << " beta " << beta << (inputs.size() > 2 ? to_string(feeds[inputs[2]].shape()) : ""));
    net.output(net.add("Gemm", inputs, {{"transA", int64_t{ta}}, {"transB", int64_t{tb}}, {"alpha", alpha}, {"beta", beta}}));
    expect_as_cpu(net.graph(), feeds, bound_of(type));
    if (testing::Test::HasFatalFailure()) return;
  }
}

ValueId gelu_pieces(Net& net, ValueId x, DType type) {
  const auto number = [&](float v) { return net.constant(cast(Tensor::scalar(v), type)); };
  const ValueId erf = net.add("Erf", {net.add("Div", {x, number(std::sqrt(2.0f))})});
  return net.add("Mul", {net.add("Mul", {x, net.add("Add", {erf, number(1)})}), number(0.5f)});
}

TEST(CudaFusedProduct, EndsWithBiasAndActivation) {
  Random r(13);
  for (int i = 0; i < 60; ++i) {
    const DType type = random_float(r);
    const int64_t k = r.in(1, 40), n = r.in(1, 40);
    const bool gemm = r.chance(2), transposed = gemm && r.chance(2);
    const Shape xs = gemm || r.chance(3) ? Shape{r.in(1, 20), k} : Shape{2, r.in(1, 9), k};
    Net net;
    const ValueId x = net.input(type, xs), w = net.constant(random_tensor(r, type, transposed ? Shape{n, k} : Shape{k, n})), bias = net.constant(random_tensor(r, type, {n}));
    ValueId y;
    if (gemm) {
      std::vector<ValueId> inputs{x, w};
      if (r.chance(2)) inputs.push_back(bias);
      y = net.add("Gemm", inputs, {{"transB", int64_t{transposed}}});
    } else {
      y = net.add("Add", {net.add("MatMul", {x, w}), bias});
    }
    const auto number = [&](float v) { return net.constant(cast(Tensor::scalar(v), type)); };
    switch (r.in(0, 5)) {
      case 0: y = net.add("Relu", {y}); break;
      case 1: y = net.add("Clip", {y, number(-0.5f), number(0.25f)}); break;
      case 2: y = net.add("Gelu", {y}); break;
      case 3: y = net.add("Gelu", {y}, {{"approximate", std::string("tanh")}}); break;
      case 4: y = gelu_pieces(net, y, type); break;
      default: y = net.add("Mul", {y, net.add("Sigmoid", {y})});
    }
    net.output(y);
    SCOPED_TRACE(testing::Message() << name_of(type) << to_string(xs) << " n " << n);
    SessionOptions on_device;
    on_device.device = cuda_device();
    EXPECT_EQ(Session(net.graph(), on_device).plan().size(), 1u);
    expect_as_cpu(net.graph(), {{x, random_tensor(r, type, xs)}}, 2 * bound_of(type));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(CudaMatMulInteger, SumsAsTheCpuDoes) {
  Random r(14);
  for (int i = 0; i < 40; ++i) {
    const DType ta = r.pick({DType::U8, DType::I8}), tb = r.pick({DType::U8, DType::I8});
    const Shape lead{r.in(1, 3), r.in(1, 3)};
    const int64_t m = r.in(1, 20), k = r.in(0, 40), n = r.in(1, 40);
    Shape as = random_lead(r, static_cast<size_t>(r.in(0, 2)), lead), bs = random_lead(r, static_cast<size_t>(r.in(0, 2)), lead);
    as.insert(as.end(), {m, k});
    bs.insert(bs.end(), {k, n});
    Net net;
    std::vector<ValueId> inputs{net.input(ta, as), net.input(tb, bs)};
    Feeds feeds{{inputs[0], random_codes(r, ta, as)}, {inputs[1], random_codes(r, tb, bs)}};
    if (r.chance(2)) inputs.push_back(net.constant(random_codes(r, ta, r.chance(2) ? Shape{} : Shape{m})));
    if (r.chance(2)) {
      inputs.resize(3, kNone);
      inputs.push_back(net.constant(random_codes(r, tb, r.chance(2) ? Shape{} : Shape{n})));
    }
    net.output(net.add("MatMulInteger", inputs));
    SCOPED_TRACE(testing::Message() << name_of(ta) << to_string(as) << name_of(tb) << to_string(bs));
    SessionOptions on_device;
    on_device.device = cuda_device();
    on_device.fallback = false;
    expect_same_bits(Session(net.graph(), on_device).run(feeds), Session(net.graph()).run(feeds));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(CudaMatMul, RefusesTypesThatItDoesNotKnow) {
  Net net(13);
  const ValueId x = net.input(DType::I16, {2, 2});
  net.output(net.add("MatMul", {x, x}));
  EXPECT_THROW(run_cuda(net.graph(), {{x, Tensor::zeros(DType::I16, {2, 2})}}), Error);
}

}  // namespace
}  // namespace infopt::test
