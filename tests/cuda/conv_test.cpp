// Convolutions of floats on the device, alone and with what the fusion rules join with them.
#include "tests/cuda/harness.h"
#include "tests/runtime/float_conv_case.h"

namespace infopt::test {
namespace {

double bound_of(DType type) { return type == DType::F16 ? 3e-3 : type == DType::BF16 ? 2.4e-2 : 1e-5; }
DType random_float(Random& r) { return r.pick({DType::F32, DType::F32, DType::F16, DType::BF16}); }

TEST(CudaConv, GivesWhatTheCpuGives) {
  Random r(21);
  for (int i = 0; i < 80; ++i) {
    const FloatConvCase c(r);
    const DType type = random_float(r);
    const bool constant = r.chance(2);
    Net net;
    const Shape xs = c.x;
    const ValueId x = net.input(type, xs);
    const Tensor weights = cast(c.weights, type);
    const ValueId w = constant ? net.constant(weights) : net.input(type, weights.shape());
    std::vector<ValueId> inputs{x, w};
    Feeds feeds{{x, cast(random_floats(r, xs), type)}};
    if (!constant) feeds[w] = weights;
    if (c.bias.defined()) inputs.push_back(net.constant(cast(c.bias, type)));
    net.output(net.add("Conv", inputs, {{"strides", c.strides}, {"dilations", c.dilations}, {"group", c.groups}, {"pads", std::vector<int64_t>(2 * c.spatial(), 5)}}));
    SCOPED_TRACE(testing::Message() << name_of(type) << to_string(xs) << to_string(c.w) << " groups " << c.groups);
    expect_as_cpu(net.graph(), feeds, bound_of(type));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(CudaConv, PointwiseAndWholeWindowsKeepEveryShape) {
  Random r(22);
  for (int i = 0; i < 20; ++i) {
    const DType type = random_float(r);
    const int64_t groups = r.pick<int64_t>({1, 1, 2}), channels = r.pick<int64_t>({3, 8, 16}) * groups, m = r.pick<int64_t>({1, 8, 24}) * groups, size = r.in(1, 9), kernel = r.chance(2) ? 1 : size;
    Net net;
    const Shape shape{r.in(1, 3), channels, size, size};
    const ValueId x = net.input(type, shape);
    net.output(net.add("Conv", {x, net.constant(cast(random_floats(r, {m, channels / groups, kernel, kernel}), type)), net.constant(cast(random_floats(r, {m}), type))}, {{"group", groups}}));
    expect_as_cpu(net.graph(), {{x, cast(random_floats(r, shape), type)}}, bound_of(type));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(CudaFusedConv, JoinsPadNormalizationResidualAndBounds) {
  Random r(23);
  for (int i = 0; i < 80; ++i) {
    const FloatConvCase c(r);
    SCOPED_TRACE(testing::Message() << i << to_string(c.x) << to_string(c.w) << " groups " << c.groups);
    if (!c.extra.empty() && !c.joins_pad()) continue;  // Pad is another kernel's
    Net net;
    const ValueId x = net.input(DType::F32, c.x);
    Feeds feeds{{x, c.given}};
    ValueId other = kNone;
    if (c.residual.defined()) {
      Shape shape = c.out;
      if (r.chance(4)) shape = r.pick<Shape>({{1}, {}, {c.out[1]}});
      if (shape.size() == 1) shape.resize(c.out.size() - 1, 1);
      other = net.input(DType::F32, shape);
      feeds[other] = random_floats(r, shape);
    }
    const ValueId y = c.build(net, x, other);
    if (net.graph().producer(y)->is("Conv")) continue;
    net.output(y);
    SessionOptions on_device;
    on_device.device = cuda_device();
    EXPECT_EQ(Session(net.graph(), on_device).plan().size(), 1u);
    expect_as_cpu(net.graph(), feeds);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(CudaFusedConv, TakesSixteenBitFloats) {
  Random r(24);
  for (int i = 0; i < 40; ++i) {
    FloatConvCase c(r);
    const DType type = r.pick({DType::F16, DType::BF16});
    if (!c.extra.empty()) continue;
    Net net;
    const auto constant = [&](const Tensor& t) { return net.constant(cast(t, type)); };
    const ValueId x = net.input(type, c.x);
    Feeds feeds{{x, cast(c.given, type)}};
    std::vector<ValueId> inputs{x, constant(c.weights)};
    if (c.bias.defined()) inputs.push_back(constant(c.bias));
    ValueId y = net.add("Conv", inputs, c.attributes());
    if (c.norm[0].defined()) {
      c.norm[3] = random_floats(r, {c.w[0]}, 0.5f, 4);
      y = net.add("BatchNormalization", {y, constant(c.norm[0]), constant(c.norm[1]), constant(c.norm[2]), constant(c.norm[3])}, {{"epsilon", c.epsilon}});
    }
    if (c.residual.defined()) {
      const ValueId other = net.input(type, c.out);
      feeds[other] = cast(c.residual, type);
      y = net.add("Add", {y, other});
    }
    y = net.add("Clip", {y, constant(Tensor::scalar(-1.5f)), constant(Tensor::scalar(6.0f))});
    net.output(y);
    SCOPED_TRACE(testing::Message() << i << name_of(type) << to_string(c.x) << to_string(c.w) << " groups " << c.groups);
    SessionOptions on_device;
    on_device.device = cuda_device();
    EXPECT_EQ(Session(net.graph(), on_device).plan().size(), 1u);
    // The weights are rounded again when the normalization goes into them.
    const auto want = Session(net.graph()).run(feeds), got = run_cuda(net.graph(), feeds);
    const auto a = to_vector<double>(got[0]), b = to_vector<double>(want[0]);
    for (size_t q = 0; q < a.size(); ++q) ASSERT_NEAR(a[q], b[q], (type == DType::F16 ? 0.02 : 0.16) * (1 + std::sqrt(static_cast<double>(element_count(c.w)) / static_cast<double>(c.w[0])))) << q;
  }
}

TEST(CudaConvTranspose, GivesWhatTheCpuGives) {
  Random r(25);
  for (int i = 0; i < 60; ++i) {
    const DType type = random_float(r);
    const size_t axes = static_cast<size_t>(r.pick<int64_t>({1, 2, 2, 3}));
    const int64_t groups = r.pick<int64_t>({1, 1, 2, 3}), channels = r.in(1, 9) * groups, m = r.in(1, 9);
    Shape xs{r.in(1, 2), channels}, ws{channels, m};
    std::vector<int64_t> strides, dilations, pads(2 * axes), extra;
    for (size_t d = 0; d < axes; ++d) {
      xs.push_back(r.in(2, 6));
      ws.push_back(r.in(1, 4));
      strides.push_back(r.in(1, 3));
      dilations.push_back(r.in(1, 2));
      extra.push_back(r.in(0, strides[d] - 1));
      for (size_t side : {d, d + axes}) pads[side] = r.in(0, std::min<int64_t>(2, (ws[d + 2] - 1) * dilations[d]) / 2);
    }
    Attributes attributes{{"strides", strides}, {"dilations", dilations}, {"group", groups}, {"output_padding", extra}};
    if (r.chance(4)) attributes.push_back({"auto_pad", std::string(r.chance(2) ? "SAME_UPPER" : "SAME_LOWER")});
    else attributes.push_back({"pads", pads});
    Net net;
    const ValueId x = net.input(type, xs);
    const Tensor weights = cast(random_floats(r, ws), type);
    const bool constant = r.chance(2);
    std::vector<ValueId> inputs{x, constant ? net.constant(weights) : net.input(type, ws)};
    Feeds feeds{{x, cast(random_floats(r, xs), type)}};
    if (!constant) feeds[inputs[1]] = weights;
    if (r.chance(2)) inputs.push_back(net.constant(cast(random_floats(r, {m * groups}), type)));
    net.output(net.add("ConvTranspose", inputs, attributes));
    SCOPED_TRACE(testing::Message() << name_of(type) << to_string(xs) << to_string(ws) << " groups " << groups << " strides " << to_string(strides) << " pads " << to_string(pads));
    expect_as_cpu(net.graph(), feeds, bound_of(type));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(CudaConv, RefusesShapesThatDoNotFit) {
  Net net;
  const ValueId x = net.open_input(DType::F32);
  net.output(net.add("Conv", {x, net.constant(Tensor::zeros(DType::F32, {4, 3, 3, 3}))}));
  EXPECT_THROW(run_cuda(net.graph(), {{x, Tensor::zeros(DType::F32, {1, 4, 8, 8})}}), Error);
  EXPECT_THROW(run_cuda(net.graph(), {{x, Tensor::zeros(DType::F32, {1, 3, 2, 8})}}), Error);
  EXPECT_THROW(run_cuda(net.graph(), {{x, Tensor::zeros(DType::F32, {1, 3, 8})}}), Error);
}

}  // namespace
}  // namespace infopt::test
