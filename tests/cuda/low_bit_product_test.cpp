// Products with weights of 4 and 8 bits against DequantizeLinear and MatMul on the CPU.
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

struct LowBitCase {
  DType codes = DType::I4, real = DType::F32;
  int64_t m = 1, k = 64, n = 16, block = 32;  ///< block 0: a scale for each column; -1: one for all
  bool turned = false, zeros = false, bias = false, add = false;
};

double tolerance(DType t) { return t == DType::F32 ? 2e-6 : t == DType::F16 ? 2e-3 : 2e-2; }

Tensor random_floats(Random& r, DType type, const Shape& shape, float low, float high) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(low, high);
  return cast(t, type);
}

Tensor random_low_bits(Random& r, DType type, const Shape& shape) {
  Tensor t(DType::I32, shape);
  const bool four = type == DType::I4 || type == DType::U4, is_signed = type == DType::I4 || type == DType::I8;
  const int64_t low = is_signed ? (four ? -8 : -128) : 0;
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<int32_t>()[i] = static_cast<int32_t>(r.in(low, low + (four ? 15 : 255)));
  return cast(t, type);
}

void check(Random& r, const LowBitCase& c) {
  SCOPED_TRACE(testing::Message() << name_of(c.codes) << " " << name_of(c.real) << " " << c.m << "x" << c.k << "x" << c.n << " block " << c.block << (c.turned ? " turned" : "") << (c.zeros ? " zeros" : ""));
  Net net(21);
  const ValueId x = net.input(c.real, {c.m, c.k});
  const int64_t blocks = c.block > 0 ? (c.k + c.block - 1) / c.block : 1;
  const Shape shape = c.turned ? Shape{c.n, c.k} : Shape{c.k, c.n};
  const Shape parameters = c.block < 0 ? Shape{} : c.block == 0 ? Shape{c.n} : c.turned ? Shape{c.n, blocks} : Shape{blocks, c.n};
  std::vector<ValueId> in{net.constant(random_low_bits(r, c.codes, shape)), net.constant(random_floats(r, c.real, parameters, 0.01f, 0.1f))};
  if (c.zeros) in.push_back(net.constant(random_low_bits(r, c.codes, parameters)));
  Attributes attributes;
  if (c.block > 0) attributes = {{"axis", int64_t{c.turned ? 1 : 0}, {}}, {"block_size", c.block, {}}};
  else attributes = {{"axis", int64_t{c.turned ? 0 : 1}, {}}};
  const ValueId w = net.add("DequantizeLinear", in, attributes);
  const ValueId row = net.constant(random_floats(r, c.real, {c.n}, -1, 1));
  ValueId y = kNone;
  if (c.turned || c.bias) {
    std::vector<ValueId> operands{x, w};
    if (c.bias) operands.push_back(row);
    y = net.add("Gemm", operands, {{"transB", int64_t{c.turned}, {}}});
  } else {
    y = net.add("MatMul", {x, w});
    if (c.add) y = net.add("Add", {y, row});
  }
  net.output(y);
  SessionOptions options;
  options.device = cuda_device();
  options.fallback = false;
  const auto plan = Session(net.graph(), options).plan();
  ASSERT_EQ(plan.size(), 1u);
  EXPECT_NE(plan[0].kernel.find("-bit weights"), std::string::npos) << plan[0].kernel;
  expect_as_cpu(net.graph(), {{x, random_floats(r, c.real, {c.m, c.k}, -2, 2)}}, tolerance(c.real));
}

TEST(CudaLowBitProduct, IsTheProductOfTheDecodedWeights) {
  for (unsigned seed = 0; seed < 120 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    LowBitCase c;
    c.codes = r.pick({DType::I4, DType::U4, DType::I8, DType::U8});
    c.real = r.pick({DType::F32, DType::F16, DType::BF16});
    c.m = r.pick<int64_t>({1, 2, 4, 5, 8, 9, 16, 17, 40, 65, 70});
    c.k = r.pick<int64_t>({4, 16, 36, 64, 128, 260, 512});
    c.n = r.pick<int64_t>({1, 8, 16, 31, 64, 130});
    c.block = r.pick<int64_t>({-1, 0, 16, 32, 64, 128, 256});
    c.turned = r.chance(2), c.zeros = r.chance(2), c.bias = r.chance(3), c.add = r.chance(2);
    if (c.n == 1 && c.block == 0) c.block = -1;
    check(r, c);
  }
}

TEST(CudaLowBitProduct, SplitsOfALongAxisAreAdded) {
  Random r(1);
  for (const int64_t m : {1, 6, 16}) check(r, {DType::I4, DType::F16, m, 4096, 32, 32, false, false, false, true});
  check(r, {DType::U8, DType::F32, 3, 2048, 48, 0, true, true, true, false});
}

TEST(CudaLowBitProduct, FloatsBeyondTheRangeStayWhatTheyAre) {
  Random r(2);
  Net net(21);
  const ValueId x = net.input(DType::F32, {3, 32});
  const ValueId w = net.add("DequantizeLinear", {net.constant(cast(Tensor::of<int32_t>({32, 1}, std::vector<int32_t>(32, 3)), DType::I8)), net.number(1.0f)});
  net.output(net.add("MatMul", {x, w}));
  Tensor v = Tensor::zeros(DType::F32, {3, 32});
  v.mutable_data<float>()[5] = std::numeric_limits<float>::infinity();
  v.mutable_data<float>()[40] = std::numeric_limits<float>::quiet_NaN();
  v.mutable_data<float>()[70] = 1.0000001f;
  expect_as_cpu(net.graph(), {{x, v}}, 1e-7);
}

TEST(CudaLowBitProduct, ReadsMatMulNBits) {
  for (unsigned seed = 0; seed < 30 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    const int64_t bits = r.pick<int64_t>({4, 4, 8}), m = r.pick<int64_t>({1, 7, 80}), k = r.pick<int64_t>({32, 64, 100, 256}), n = r.pick<int64_t>({5, 32, 70}), block = r.pick<int64_t>({16, 32, 128});
    const int64_t blocks = (k + block - 1) / block, bytes = block * bits / 8, zero_bytes = bits == 4 ? (blocks + 1) / 2 : blocks;
    const DType type = r.pick({DType::F32, DType::F16});
    const bool zeros = r.chance(2), bias = r.chance(2);
    const Tensor codes = random_codes(r, DType::U8, {n, blocks, bytes}), scales = random_floats(r, type, {n * blocks}, 0.01f, 0.1f), points = random_codes(r, DType::U8, {n * zero_bytes}), row = random_floats(r, type, {n}, -1, 1);
    Net net;
    const ValueId x = net.input(type, {m, k});
    std::vector<ValueId> in{x, net.constant(codes), net.constant(scales), zeros ? net.constant(points) : kNone};
    if (bias) in.insert(in.end(), {kNone, net.constant(row)});
    net.output(net.edit().add({.op = "MatMulNBits", .domain = "com.microsoft", .attributes = {{"K", k, {}}, {"N", n, {}}, {"bits", bits, {}}, {"block_size", block, {}}}}, in));
    // What it means, from its documentation: (code − zero)·scale by column and block, low nibble first; the zero point is else half of the range.
    const auto code = [&](const Tensor& t, int64_t first, int64_t i) {
      const int byte = static_cast<int>(t.raw()[first + (bits == 4 ? i / 2 : i)]);
      return bits == 4 ? byte >> (i % 2 * 4) & 15 : byte;
    };
    const auto s = to_vector<float>(scales);
    Tensor decoded(DType::F32, {k, n});
    for (int64_t c = 0; c < n; ++c)
      for (int64_t i = 0; i < k; ++i) {
        const int64_t b = i / block;
        const int zero = zeros ? code(points, c * zero_bytes, b) : 1 << (bits - 1);
        decoded.mutable_data<float>()[i * n + c] = static_cast<float>(code(codes, (c * blocks + b) * bytes, i % block) - zero) * s[static_cast<size_t>(c * blocks + b)];
      }
    Net plain;
    const ValueId px = plain.input(DType::F32, {m, k}), product = plain.add("MatMul", {px, plain.constant(decoded)});
    plain.output(bias ? plain.add("Add", {product, plain.constant(cast(row, DType::F32))}) : product);
    const Tensor v = random_floats(r, type, {m, k}, -2, 2);
    const Tensor got = run_cuda(net.graph(), {{x, v}})[0], want = Session(plain.graph()).run({{px, cast(v, DType::F32)}})[0];
    Agreement agreement;
    agreement.compare(cast(got, DType::F32), want, tolerance(type));
  }
}

}  // namespace
}  // namespace infopt::test
