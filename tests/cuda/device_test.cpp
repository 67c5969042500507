// A session on a device: copies, layouts, fallback, faults.
#include "lib/runtime/cuda/staging.h"
#include "lib/runtime/layout.h"
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

TEST(CudaSession, ViewsKeepTheElements) {
  Net net;
  const ValueId x = net.input(DType::F32, {2, 6});
  const ValueId y = net.add("Reshape", {x, net.integers({3, -1})});
  net.output(net.add("Unsqueeze", {y, net.integers({0})}));
  Random r(1);
  expect_as_cpu(net.graph(), {{x, Tensor::of<float>({2, 6}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})}});
}

TEST(CudaSession, DropoutIsNothingButInTraining) {
  for (const bool training : {false, true}) {
    Net net(13);
    const ValueId x = net.input(DType::F32, {2, 6});
    net.output(net.add("Dropout", {x, net.number(0.5f), net.constant(zero_tensor(DType::Bool, training))}));
    SessionOptions options;
    options.device = cuda_device();
    EXPECT_EQ(Session(net.graph(), options).plan().at(0).place, training ? Session::PlanLine::Cpu : Session::PlanLine::OnDevice);
    if (!training) expect_as_cpu(net.graph(), {{x, Tensor::of<float>({2, 6}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})}});
  }
}

TEST(CudaSession, ShapeArithmeticIsTheHosts) {
  Net net;
  const ValueId x = net.input(DType::F32, {2, 6});
  const ValueId shape = net.add("Shape", {x});
  const ValueId rows = net.add("Gather", {shape, net.constant(Tensor::vector<int64_t>({0}))});
  const ValueId target = net.add("Concat", {rows, net.integers({2, -1})}, {{"axis", int64_t{0}}});
  net.output(net.add("Reshape", {x, target}));
  expect_as_cpu(net.graph(), {{x, Tensor::of<float>({2, 6}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})}});
}

TEST(CudaSession, FallsBackToTheCpuWithAReason) {
  Net net;
  const ValueId x = net.input(DType::F32, {4});
  net.output(net.add("Identity", {net.add("Multinomial", {net.add("Reshape", {x, net.integers({1, 4})})})}));
  SessionOptions options;
  options.device = cuda_device();
  const auto plan = Session(net.graph(), options).plan();
  ASSERT_EQ(plan.size(), 3u);
  EXPECT_EQ(plan[0].place, Session::PlanLine::OnDevice);
  EXPECT_EQ(plan[1].place, Session::PlanLine::Cpu);
  EXPECT_NE(plan[1].refusal.find("no CUDA kernel for Multinomial"), std::string::npos);
  options.fallback = false;
  EXPECT_THROW(Session(net.graph(), options), Error);
}

TEST(CudaSession, LayoutsConvertBothWays) {
  Random r(7);
  const auto run = cuda_device()->begin();
  for (const Shape& shape : {Shape{2, 3, 5, 7}, Shape{1, 40, 33}, Shape{3, 65, 4, 4, 2}, Shape{0, 3, 2, 2}}) {
    Tensor x(DType::U8, shape);
    const auto bytes = r.bytes(x.size());
    std::copy_n(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size(), x.mutable_raw());
    const Tensor there = run->convert_layout(run->to_device(x), Layout::Plain, Layout::ChannelsLast);
    expect_same_bits(run->to_host(there), convert_layout(x, Layout::Plain, Layout::ChannelsLast));
    expect_same_bits(run->to_host(run->convert_layout(there, Layout::ChannelsLast, Layout::Plain)), x);
  }
}

TEST(CudaSession, RecordsTheSecondRunAndReplaysLaterOnes) {
  Net net;
  const ValueId x = net.open_input(DType::F32);
  net.output(net.add("Reshape", {net.add("Identity", {x}), net.integers({-1, 2})}));
  SessionOptions options;
  options.device = cuda_device();
  options.fallback = false;
  const Session session(net.graph(), options);
  for (int64_t run = 0; run < 6; ++run) {
    const int64_t n = run < 4 ? 2 : 3;
    Tensor t(DType::F32, {n, 2});
    for (int64_t i = 0; i < 2 * n; ++i) t.mutable_data<float>()[i] = static_cast<float>(10 * run + i);
    expect_same_bits(session.run(Feeds{{x, t}}).at(0), t);
    EXPECT_EQ(session.recorded_runs(), run == 0 ? 0 : run < 5 ? 1 : 2);
  }
}

TEST(CudaSession, ReplaysWhatTheHostComputedOfShapes) {
  Net net;
  const ValueId x = net.open_input(DType::F32);
  const ValueId size = net.add("Cast", {net.add("Shape", {x})}, {{"to", int64_t{1}}});
  net.output(net.add("Mul", {net.add("Add", {x, size}), net.add("Neg", {x})}));
  SessionOptions options;
  options.device = cuda_device();
  options.fallback = false;
  const Session session(net.graph(), options), cpu(net.graph());
  for (int64_t run = 0; run < 5; ++run) {
    const Feeds feeds{{x, Tensor::of<float>({3}, {1, static_cast<float>(run), 3})}};
    std::vector<Tensor> junk;  // takes the places of what earlier runs left
    for (int i = 0; i < 64; ++i) junk.push_back(Tensor::of<float>({1}, {-1e9f}));
    expect_same_bits(session.run(feeds), cpu.run(feeds));
  }
  EXPECT_EQ(session.recorded_runs(), 1);
}

TEST(CudaDevice, CopiesOfAnySizeCrossPieceByPiece) {
  const auto run = cuda_device()->begin();
  const auto piece = static_cast<int64_t>(cuda::Staging::kPiece);
  Random r(7);
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, piece - 1, piece, piece + 1, 2 * piece, 3 * piece + 5}) {
    const Tensor given = random_codes(r, DType::U8, {bytes});
    Tensor there = run->to_device(given);
    expect_same_bits(run->to_host(there), given);
    const Tensor other = random_codes(r, DType::U8, {bytes});
    run->copy_in(other, there);
    expect_same_bits(run->to_host(there), other);
  }
}

TEST(CudaSession, DoesNotRecordWhatTheHostReads) {
  Net net;
  const ValueId x = net.input(DType::F32, {4}), shape = net.input(DType::I64, {2});
  net.output(net.add("Reshape", {x, shape}));
  SessionOptions options;
  options.device = cuda_device();
  options.fallback = false;
  const Session session(net.graph(), options);
  const Tensor t = Tensor::of<float>({4}, {1, 2, 3, 4});
  for (int64_t rows : {2, 2, 4, 1}) {
    const auto out = session.run(Feeds{{x, t}, {shape, Tensor::vector<int64_t>({rows, 4 / rows})}});
    EXPECT_EQ(out[0].shape(), (Shape{rows, 4 / rows}));
  }
  EXPECT_EQ(session.recorded_runs(), 0);
}

}  // namespace
}  // namespace infopt::test
