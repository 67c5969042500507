// Integer convolutions and products on the device: the CPU kernels' bits.
#include "lib/runtime/cpu/int8_conv.h"
#include "lib/runtime/cpu/int8_product.h"
#include "tests/cuda/kernel_harness.h"
#include "tests/runtime/int8_reference.h"

namespace infopt::test {
namespace {

using cpu::EpilogueCase;

std::shared_ptr<const IntegerEpilogue> share(const EpilogueCase& c) {
  auto end = std::make_shared<IntegerEpilogue>();
  end->epilogue = c.e;
  end->scale = c.scale, end->float_bias = c.float_bias, end->bias = c.bias;
  end->epilogue.scale = end->scale.data();
  if (c.e.bias) end->epilogue.bias = end->bias.data();
  if (c.e.float_bias) end->epilogue.float_bias = end->float_bias.data();
  if (c.e.table) {
    std::copy(c.table.begin(), c.table.end(), end->table.begin());
    end->epilogue.table = end->table.data();
  }
  end->output = c.e.output;
  return end;
}

std::vector<int32_t> random_zeros(Random& r, DType type, int64_t n) {
  std::vector<int32_t> zeros;
  if (!r.chance(3)) return zeros;
  const bool half = r.chance(3);
  for (int64_t i = 0; i < n; ++i) zeros.push_back(half ? cpu::least_of(type) + 128 : cpu::random_zero(r, type));
  return zeros;
}

Tensor bytes_tensor(DType type, const Shape& shape, const std::vector<uint8_t>& bytes) {
  Tensor t(type, shape);
  std::memcpy(t.mutable_raw(), bytes.data(), t.bytes());
  return t;
}

struct ConvShape {
  int64_t images, groups, channels, columns;  ///< of a group
  std::vector<int64_t> kernel, in;
};

void check_conv(Random& r, const ConvShape& s) {
  const size_t spatial = s.kernel.size();
  Shape x_shape{s.images, s.groups * s.channels}, w_shape{s.groups * s.columns, s.channels};
  cpu::ConvGeometry g;
  g.groups = s.groups;
  std::vector<int64_t> out;
  Shape y_shape{s.images, s.groups * s.columns};
  for (size_t i = 0; i < spatial; ++i) {
    g.strides.push_back(r.pick<int64_t>({1, 1, 2, 3}));
    g.dilations.push_back(r.pick<int64_t>({1, 1, 2}));
    g.pads_begin.push_back(r.in(0, 2)), g.pads_end.push_back(r.in(0, 2));
    const int64_t extent = (s.kernel[i] - 1) * g.dilations[i] + 1;
    x_shape.push_back(std::max(s.in[i], extent - g.pads_begin[i] - g.pads_end[i]));
    if (x_shape.back() < 1) x_shape.back() = 1;
    w_shape.push_back(s.kernel[i]);
    y_shape.push_back((x_shape.back() + g.pads_begin[i] + g.pads_end[i] - extent) / g.strides[i] + 1);
  }
  const CodeStep input{r.pick({DType::U8, DType::I8}), 0.1f, 0};
  const int32_t zero = cpu::random_zero(r, input.dtype);
  const Tensor x = random_codes(r, input.dtype, x_shape), w = random_codes(r, r.pick({DType::I8, DType::I8, DType::U8}), w_shape);
  const std::vector<int32_t> zeros = random_zeros(r, w.dtype(), w_shape[0]);
  EpilogueCase end(r, w_shape[0], element_count(y_shape), 8000.0 * std::sqrt(static_cast<double>(std::max<int64_t>(1, w.size() / w_shape[0]))));
  SCOPED_TRACE(testing::Message() << to_string(x_shape) << " by " << to_string(w_shape) << " groups " << s.groups << " " << end.describe() << (zeros.empty() ? "" : " zeros"));

  // The CPU's, channels last.
  const cpu::Int8Convolution engine(g, w, input.dtype, zeros.empty() ? nullptr : zeros.data());
  Tensor want(end.e.output, y_shape), residual;
  if (end.e.residual) residual = bytes_tensor(end.e.residual_dtype, y_shape, end.residual);
  const Tensor xl = convert_layout(x, Layout::Plain, Layout::ChannelsLast);
  engine.run(xl, zero, end.e, end.e.residual ? &residual : nullptr, want, 0, engine.tasks(x_shape));
  want = convert_layout(want, Layout::ChannelsLast, Layout::Plain);

  IntegerConv how;
  how.window = {s.kernel, g.strides, g.dilations, g.pads_begin, "", false};
  how.window.pads.insert(how.window.pads.end(), g.pads_end.begin(), g.pads_end.end());
  how.groups = s.groups;
  how.input = {input.dtype, 0.1f, zero};
  how.weights = w;
  how.zeros = zeros;
  how.end = share(end);
  const auto kernel = cuda_device()->integer_conv(how);
  ASSERT_TRUE(kernel);
  LoneContext context(cuda_device()->begin());
  context.add(x, r.pick({Layout::Plain, Layout::ChannelsLast}));
  if (end.e.residual) context.add(convert_layout(residual, Layout::ChannelsLast, Layout::Plain), r.pick({Layout::Plain, Layout::ChannelsLast}));
  kernel->run(context);
  expect_same_bits(context.result(), want);
}

TEST(CudaIntegerConv, GivesTheCpusBits) {
  for (unsigned seed = 0; seed < 120 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    ConvShape s{r.in(1, 2), 1, r.pick<int64_t>({1, 3, 4, 12, 16, 20, 32, 64, 80}), r.pick<int64_t>({1, 5, 8, 16, 33, 64, 70, 130}), {}, {}};
    if (r.chance(5)) s.groups = r.in(2, 3), s.columns = r.pick<int64_t>({32, 36, 48});
    const int64_t spatial = r.pick<int64_t>({1, 2, 2, 2, 3});
    for (int64_t i = 0; i < spatial; ++i) s.kernel.push_back(r.in(1, spatial == 3 ? 2 : 3)), s.in.push_back(r.in(1, spatial == 3 ? 5 : 9));
    check_conv(r, s);
  }
}

TEST(CudaIntegerConv, DepthwiseAndSmallGroupsGiveTheCpusBits) {
  for (unsigned seed = 0; seed < 120 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    ConvShape s{r.in(1, 2), r.pick<int64_t>({2, 3, 8, 16, 33, 68}), 1, 1, {}, {}};
    if (r.chance(3)) s.groups = r.in(2, 9), s.channels = r.in(1, 6), s.columns = r.in(1, 5);
    const int64_t spatial = r.pick<int64_t>({1, 2, 2, 2, 3});
    for (int64_t i = 0; i < spatial; ++i) s.kernel.push_back(r.in(1, 3)), s.in.push_back(r.in(1, 9));
    check_conv(r, s);
  }
}

TEST(CudaIntegerConv, LargeTilesGiveTheCpusBits) {
  Random r(5);
  check_conv(r, {2, 1, 16, 132, {1, 1}, {105, 99}});
  check_conv(r, {1, 1, 4, 72, {1, 1}, {129, 132}});
  check_conv(r, {1, 1, 160, 48, {3, 3}, {14, 14}});
}

void check_product(Random& r, int64_t rows, int64_t k, int64_t n) {
  const DType type = r.pick({DType::U8, DType::I8});
  const bool transposed = r.chance(2);
  const int32_t zero = cpu::random_zero(r, type);
  const Tensor x = random_codes(r, type, {rows, k}), w = random_codes(r, r.pick({DType::I8, DType::U8}), transposed ? Shape{n, k} : Shape{k, n});
  const std::vector<int32_t> zeros = random_zeros(r, w.dtype(), n);
  EpilogueCase end(r, n, rows * n, 8000.0 * std::sqrt(static_cast<double>(k)));
  end.e.residual = false;
  SCOPED_TRACE(testing::Message() << rows << "x" << k << "x" << n << " " << end.describe() << (zeros.empty() ? "" : " zeros"));
  const cpu::PackedInt8 packed(w.raw(), w.dtype(), k, n, transposed ? 1 : n, transposed ? k : 1, zeros.empty() ? nullptr : zeros.data());
  Tensor want(end.e.output, {rows, n});
  cpu::int8_product({x.raw(), type, k, zero}, packed, end.e, nullptr, want.mutable_raw(), n, 0, rows);
  const auto kernel = cuda_device()->integer_product({{type, 0.1f, zero}, w, transposed, zeros, share(end), false});
  ASSERT_TRUE(kernel);
  LoneContext context(cuda_device()->begin());
  context.add(x);
  kernel->run(context);
  expect_same_bits(context.result(), want);
}

TEST(CudaIntegerProduct, GivesTheCpusBits) {
  for (unsigned seed = 0; seed < 80 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    check_product(r, r.pick<int64_t>({1, 2, 16, 17, 33, 65, 70}), r.pick<int64_t>({1, 5, 16, 64, 100, 272, 528}), r.pick<int64_t>({1, 8, 31, 64, 100, 160}));
  }
}

TEST(CudaDynamicProduct, ComputesWithTheRunsScaleAndZeroPoint) {
  for (unsigned seed = 0; seed < 40 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    const int64_t rows = r.pick<int64_t>({1, 7, 40}), k = r.pick<int64_t>({3, 16, 48, 260}), n = r.pick<int64_t>({1, 12, 33, 64});
    DynamicProduct how;
    how.weights = random_codes(r, r.pick({DType::I8, DType::U8}), {k, n});
    how.zeros = random_zeros(r, how.weights.dtype(), n);
    for (int64_t i = 0; i < n; ++i) how.scales.push_back(r.real(0.001f, 0.01f));
    if (r.chance(2))
      for (int64_t i = 0; i < n; ++i) how.bias.push_back(r.real(-1, 1));
    if (r.chance(2)) how.bounds = {PostActivation::Clip, 0, 6};
    how.has_zero = r.chance(2);
    const DType type = r.pick({DType::U8, DType::I8});
    const int32_t zero = how.has_zero ? cpu::random_zero(r, type) : 0;
    const float scale = r.real(0.01f, 0.2f);
    const Tensor x = random_codes(r, type, {rows, k});
    cpu::Int8Epilogue e;
    std::vector<float> scales = how.scales;
    for (float& s : scales) s = scale * s;
    e.output = DType::F32;
    e.scale = scales.data();
    e.float_bias = how.bias.empty() ? nullptr : how.bias.data();
    if (how.bounds.kind == PostActivation::Clip) e.low = 0, e.high = 6;
    const cpu::PackedInt8 packed(how.weights.raw(), how.weights.dtype(), k, n, n, 1, how.zeros.empty() ? nullptr : how.zeros.data());
    Tensor want(DType::F32, {rows, n});
    cpu::int8_product({x.raw(), type, k, zero}, packed, e, nullptr, want.mutable_raw(), n, 0, rows);
    const auto kernel = cuda_device()->dynamic_product(how);
    ASSERT_TRUE(kernel);
    LoneContext context(cuda_device()->begin());
    context.add(x);
    context.add(Tensor::scalar(scale));
    if (how.has_zero) context.add(zero_tensor(type, zero));
    kernel->run(context);
    expect_same_bits(context.result(), want);
  }
}

/// DequantizeLinear → Conv → QuantizeLinear → + residual of another shape → QuantizeLinear.
TEST(CudaIntegerConv, ResidualsAreBroadcast) {
  for (unsigned seed = 0; seed < 24 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    Net net;
    const int64_t c = r.pick<int64_t>({3, 16}), m = r.pick<int64_t>({5, 16});
    const Step in = random_step(r, 0.05f), first = random_step(r, 0.2f), other = random_step(r, 0.1f), sum = random_step(r, 0.3f);
    if (!(first.type == sum.type)) continue;
    const Shape x_shape{2, c, 6, 5};
    const Shape other_shape = r.pick<Shape>({{2, m, 1, 1}, {1, m, 6, 5}, {5}, {2, 1, 6, 1}, {}, {3, 1, m, 6, 5}, {2, m, 6, 5}});
    const ValueId x = net.input(in.type, x_shape), res = net.input(other.type, other_shape);
    const ValueId w = net.add("DequantizeLinear", {net.constant(random_codes(r, DType::I8, {m, c, 3, 3})), net.number(0.01f)});
    const ValueId y = net.add("Conv", {net.dequantize(x, in), w}, {{"pads", std::vector<int64_t>{1, 1, 1, 1}, {}}});
    const ValueId inner = net.dequantize(net.quantize(y, first), first);
    net.output(net.quantize(net.add("Add", {inner, net.dequantize(res, other)}), sum));
    const Feeds feeds{{x, random_codes(r, in.type, x_shape)}, {res, random_codes(r, other.type, other_shape)}};
    EXPECT_EQ(steps_of(net.graph()), "Conv");
    expect_same_bits(run_cuda(net.graph(), feeds), Session(net.graph()).run(feeds));
  }
}

}  // namespace
}  // namespace infopt::test
