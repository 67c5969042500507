// Products of float8 codes against DequantizeLinear and MatMul on the CPU.
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

Tensor random_float8(Random& r, const Shape& shape) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(-20, 20);
  return cast(t, DType::F8E4M3FN);
}

Tensor random_reals(Random& r, DType type, const Shape& shape, float low, float high) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(low, high);
  return cast(t, type);
}

TEST(CudaFloat8Product, IsTheProductOfTheCodes) {
  for (unsigned seed = 0; seed < 60 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    const DType type = r.pick({DType::F32, DType::F16, DType::BF16});
    const int64_t m = r.in(1, 20), k = 16 * r.in(1, 9), n = 16 * r.in(1, 5);
    const bool gemm = r.chance(2), turned = gemm && r.chance(2), each = r.chance(2), bias = r.chance(2), zero = r.chance(2);
    Net net(21);
    const ValueId x = net.input(DType::F8E4M3FN, {m, k});
    std::vector<ValueId> left{x, net.constant(random_reals(r, type, {}, 0.01f, 0.1f))}, right{net.constant(random_float8(r, turned ? Shape{n, k} : Shape{k, n})), net.constant(random_reals(r, type, each ? Shape{n} : Shape{}, 0.01f, 0.1f))};
    if (zero) {
      left.push_back(net.constant(Tensor::zeros(DType::F8E4M3FN, {})));
      right.push_back(net.constant(Tensor::zeros(DType::F8E4M3FN, each ? Shape{n} : Shape{})));
    }
    const ValueId a = net.add("DequantizeLinear", left), w = net.add("DequantizeLinear", right, {{"axis", int64_t{turned ? 0 : 1}, {}}});
    const ValueId row = net.constant(random_reals(r, type, {n}, -1, 1));
    ValueId y;
    if (gemm) {
      std::vector<ValueId> in{a, w};
      if (bias) in.push_back(row);
      y = net.add("Gemm", in, {{"transB", int64_t{turned}, {}}});
    } else {
      y = net.add("MatMul", {a, w});
      if (bias) y = net.add("Add", {y, row});
    }
    net.output(y);
    SessionOptions options;
    options.device = cuda_device();
    const auto plan = Session(net.graph(), options).plan();
    ASSERT_EQ(plan.size(), 1u);
    EXPECT_NE(plan[0].kernel.find("float8 product"), std::string::npos) << plan[0].kernel;
    expect_as_cpu(net.graph(), {{x, random_float8(r, {m, k})}}, type == DType::F32 ? 2e-6 : type == DType::F16 ? 2e-3 : 2e-2);
  }
}

}  // namespace
}  // namespace infopt::test
