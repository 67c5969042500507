// TopK and ReverseSequence on the device: the CPU's results, bit for bit.
#include <limits>

#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

const std::vector<DType> kOrdered{DType::F32, DType::F16, DType::BF16, DType::F64, DType::I64, DType::I32, DType::U8, DType::I8, DType::U64, DType::Bool};

/// Many of them equal; of floats some zeros of either sign, infinities and NaN.
Tensor values(Random& r, DType type, const Shape& shape, int64_t most = 20) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = static_cast<float>(r.in(type == DType::U8 || type == DType::U64 ? 0 : -most, most)) / (is_float(type) ? 4.0f : 1.0f);
  for (int64_t i = 0; is_float(type) && i < t.size(); ++i)
    if (r.chance(9)) t.mutable_data<float>()[i] = r.pick({0.0f, -0.0f, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()});
  return cast(t, type);
}

void check_top_k(Random& r, DType type, const Shape& shape, int64_t axis, int64_t k, int64_t most = 20) {
  SCOPED_TRACE(testing::Message() << name_of(type) << to_string(shape) << ", axis " << axis << ", k " << k);
  Net net;
  const ValueId x = net.input(type, shape);
  for (const int64_t largest : {1, 0}) {
    const NodeId node = net.add_node("TopK", {x, net.integers({k})}, 2, {{"axis", axis}, {"largest", largest}});
    for (const ValueId v : net.graph().node(node).outputs) net.output(v);
  }
  const Feeds feeds{{x, values(r, type, shape, most)}};
  expect_same_bits(run_cuda(net.graph(), feeds), Session(net.graph(), {}).run(feeds));
}

TEST(CudaTopK, RandomLinesOfEveryType) {
  Random r(91);
  for (int i = 0; i < 40 && !testing::Test::HasFatalFailure(); ++i) {
    Shape shape;
    const int64_t rank = r.in(1, 3), axis = r.in(0, rank - 1);
    for (int64_t d = 0; d < rank; ++d) shape.push_back(r.pick<int64_t>({1, 2, r.in(1, 9), d == axis ? r.in(1, 70) : 3}));
    check_top_k(r, kOrdered[static_cast<size_t>(i) % kOrdered.size()], shape, axis - (r.chance(2) ? rank : 0), r.in(0, shape[static_cast<size_t>(axis)]));
  }
}

TEST(CudaTopK, LongLinesGoThroughRounds) {
  Random r(92);
  check_top_k(r, DType::F32, {2, 5000}, 1, 100, 100000);
  check_top_k(r, DType::I32, {4097, 2}, 0, 512);  // what is kept of three pieces fills one
  check_top_k(r, DType::F16, {1, 9000}, -1, 1);
}

TEST(CudaTopK, AndWhereMuchIsKeptThroughDeviceMemory) {
  Random r(93);
  check_top_k(r, DType::F32, {2, 2100}, 1, 2100, 100000);
  check_top_k(r, DType::F64, {2060, 1}, 0, 600);
}

TEST(CudaTopK, MoreThanThereAreIsAnError) {
  Net net;
  const ValueId x = net.input(DType::F32, {3});
  const NodeId node = net.add_node("TopK", {x, net.integers({4})}, 2);
  net.output(net.graph().node(node).outputs[0]);
  EXPECT_THROW(run_cuda(net.graph(), {{x, Tensor::zeros(DType::F32, {3})}}), Error);
}

TEST(CudaReverseSequence, RandomAxesAndLengths) {
  Random r(94);
  for (int i = 0; i < 40 && !testing::Test::HasFatalFailure(); ++i) {
    Shape shape;
    const int64_t rank = r.in(2, 4), batch = r.in(0, rank - 1), time = (batch + r.in(1, rank - 1)) % rank;
    for (int64_t d = 0; d < rank; ++d) shape.push_back(r.in(1, 7));
    Tensor lengths(DType::I64, {shape[static_cast<size_t>(batch)]});
    for (int64_t b = 0; b < lengths.size(); ++b) lengths.mutable_data<int64_t>()[b] = r.in(0, shape[static_cast<size_t>(time)]);
    Net net;
    const DType type = kOrdered[static_cast<size_t>(i) % kOrdered.size()];
    const ValueId x = net.input(type, shape), n = net.input(DType::I64, lengths.shape());
    net.output(net.add("ReverseSequence", {x, n}, {{"batch_axis", batch}, {"time_axis", time}}));
    const Feeds feeds{{x, values(r, type, shape)}, {n, lengths}};
    SCOPED_TRACE(testing::Message() << to_string(shape) << ", batch " << batch << ", time " << time);
    expect_same_bits(run_cuda(net.graph(), feeds), Session(net.graph(), {}).run(feeds));
  }
}

TEST(CudaReverseSequence, ALengthOutOfRangeIsAnError) {
  Net net;
  const ValueId x = net.input(DType::F32, {3, 1}), n = net.input(DType::I64, {1});
  net.output(net.add("ReverseSequence", {x, n}));
  EXPECT_THROW(run_cuda(net.graph(), {{x, Tensor::zeros(DType::F32, {3, 1})}, {n, Tensor::vector<int64_t>({4})}}), Error);
}

}  // namespace
}  // namespace infopt::test
