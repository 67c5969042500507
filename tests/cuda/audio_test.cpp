// DFT and STFT on the device: the CPU's values, within rounding.
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

Tensor signal(Random& r, DType type, const Shape& shape) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(-1, 1);
  return cast(t, type);
}

double bound_of(DType type) { return type == DType::F64 ? 1e-12 : type == DType::F32 ? 1e-5 : type == DType::F16 ? 2e-3 : 1e-2; }

TEST(CudaAudio, TransformsAsTheCpu) {
  Random r(101);
  for (int i = 0; i < 60 && !testing::Test::HasFatalFailure(); ++i) {
    const bool inverse = r.chance(2), onesided = r.chance(2);
    const int64_t parts = onesided && !inverse ? 1 : r.in(1, 2), axis = r.in(0, 1);
    const DType type = r.pick({DType::F32, DType::F32, DType::F64, DType::F16, DType::BF16});
    const Shape shape{r.in(1, 20), r.in(2, 13), r.pick<int64_t>({1, 1, 3}), parts};
    Net net;
    const ValueId x = net.input(type, shape);
    std::vector<ValueId> in{x, r.chance(2) ? net.constant(Tensor::scalar<int64_t>(r.in(1, 17))) : kNone, net.constant(Tensor::scalar(axis))};
    net.output(net.add("DFT", in, {{"inverse", int64_t{inverse}}, {"onesided", int64_t{onesided}}}));
    SCOPED_TRACE(testing::Message() << name_of(type) << to_string(shape) << ", axis " << axis << (inverse ? ", inverse" : "") << (onesided ? ", one-sided" : ""));
    if (in[1] == kNone && inverse && onesided && shape[static_cast<size_t>(axis)] < 2) continue;
    expect_as_cpu(net.graph(), {{x, signal(r, type, shape)}}, bound_of(type));
  }
}

TEST(CudaAudio, FramesAsTheCpu) {
  Random r(102);
  for (int i = 0; i < 40 && !testing::Test::HasFatalFailure(); ++i) {
    const bool onesided = r.chance(2), windowed = r.chance(2), bare = r.chance(3);
    const DType type = r.pick({DType::F32, DType::F32, DType::F64, DType::F16});
    const int64_t n = r.in(1, 40), parts = onesided || bare ? 1 : r.in(1, 2), length = n + r.in(0, 50);
    const Shape shape = bare ? Shape{r.in(1, 3), length} : Shape{r.in(1, 3), length, parts};
    Net net;
    const ValueId x = net.input(type, shape);
    std::vector<ValueId> in{x, net.constant(Tensor::scalar<int64_t>(r.in(1, 9))), kNone, kNone};
    Feeds feeds{{x, signal(r, type, shape)}};
    if (windowed && r.chance(2)) in[2] = net.constant(signal(r, type, {n}));
    else if (windowed) feeds[in[2] = net.input(type, {n})] = signal(r, type, {n});
    if (!windowed || r.chance(2)) in[3] = net.constant(Tensor::scalar(n));
    net.output(net.add("STFT", in, {{"onesided", int64_t{onesided}}}));
    SCOPED_TRACE(testing::Message() << name_of(type) << to_string(shape) << ", frames of " << n);
    expect_as_cpu(net.graph(), feeds, bound_of(type));
  }
}

TEST(CudaAudio, LongTransformsAreSummed) {
  Random r(103);
  Net net;
  const ValueId x = net.input(DType::F32, {1, 2500, 1});
  net.output(net.add("DFT", {x, kNone, net.constant(Tensor::scalar<int64_t>(1))}, {{"onesided", int64_t{1}}}));
  expect_as_cpu(net.graph(), {{x, signal(r, DType::F32, {1, 2500, 1})}}, 1e-6);
}

}  // namespace
}  // namespace infopt::test
