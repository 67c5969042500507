// Statistics computed on the device beside the CPU's, for the same elements and for a model's.
#include "calibration/statistics.h"

#include "calibration/sample_findings.h"
#include "lib/runtime/layout.h"
#include "tests/cuda/elements.h"

namespace infopt::test {
namespace {

/// Of any magnitude, some alike, some zero, some denormal.
Tensor of_all_sizes(Random& r, DType dtype, const Shape& shape) {
  Tensor t(DType::F32, shape);
  const int least = static_cast<int>(r.in(-30, 5)), most = least + static_cast<int>(r.in(0, 25));
  const bool relu = r.chance(3), ends = r.chance(4) && dtype != DType::F16;
  for (float& v : std::span(t.mutable_data<float>(), static_cast<size_t>(t.size()))) {
    v = std::ldexp(r.real(-1, 1), dtype == DType::F16 ? std::min(15, most - static_cast<int>(r.in(0, most - least))) : most - static_cast<int>(r.in(0, most - least)));
    if (r.chance(20)) v = r.pick({0.0f, -0.0f, 1.0f, -1.0f, 2.0f, 6e-8f, -6e-8f});
    if (ends && r.chance(30)) v = r.pick({3.3e38f, -3.3e38f, 1e-45f, -1e-45f, -1e-38f});
    if (relu) v = std::max(v, 0.0f);
  }
  return cast(t, dtype);
}

Tensor in_layout(const Tensor& plain, Layout layout) { return layout == Layout::Plain || plain.rank() < 3 ? plain : convert_layout(plain, Layout::Plain, layout); }

/// All but the sums to the bit; these within what adding n doubles in any order may lose.
void expect_as_collected(const TensorStatistics& got, const TensorStatistics& want) {
  EXPECT_EQ(got.samples, want.samples);
  ASSERT_EQ(got.elements, want.elements);
  EXPECT_EQ(got.min, want.min);
  EXPECT_EQ(got.max, want.max);
  EXPECT_EQ(got.channel_min, want.channel_min);
  EXPECT_EQ(got.channel_max, want.channel_max);
  EXPECT_EQ(got.histogram.exponent(), want.histogram.exponent());
  EXPECT_EQ(got.histogram.counts(), want.histogram.counts());
  ASSERT_EQ(got.channel_sum.size(), want.channel_sum.size());
  ASSERT_EQ(got.channel_square.size(), want.channel_square.size());
  const double n = want.per_channel(), lost = n * 0x1p-52;
  for (size_t c = 0; c < want.channel_sum.size(); ++c) {
    EXPECT_NEAR(got.channel_square[c], want.channel_square[c], lost * want.channel_square[c]) << c;
    EXPECT_NEAR(got.channel_sum[c], want.channel_sum[c], lost * std::sqrt(n * want.channel_square[c])) << c;
  }
}

Shape any_shape(Random& r) {
  switch (r.in(0, 5)) {
    case 0: return {r.in(1, 3), r.in(1, 20), r.in(1, 12), r.in(1, 12)};
    case 1: return {r.in(1, 3), r.in(1, 5), r.in(1, 3000)};
    case 2: return {r.in(1, 200), r.in(1, 200)};
    case 3: return {r.in(1, 4), r.in(1, 1500)};
    case 4: return {r.in(1, 40000)};
    default: return random_shape(r, 0, 5, 6);
  }
}

TEST(CudaStatistics, OfTheSameElementsAreTheCpus) {
  Random r(11);
  for (int round = 0; round < 12; ++round) {
    struct Case {
      Tensor tensor;
      Layout layout;
      int64_t axis;
    };
    std::vector<Case> cases;
    const auto run = cuda_device()->begin();
    for (int64_t i = r.in(1, 40); i > 0; --i) {
      const Shape shape = any_shape(r);
      const auto rank = static_cast<int64_t>(shape.size());
      const Layout layout = rank < 3 ? Layout::Plain : r.pick({Layout::Plain, Layout::ChannelsLast});
      cases.push_back({in_layout(of_all_sizes(r, r.pick({DType::F32, DType::F32, DType::F16, DType::BF16}), shape), layout), layout, r.in(-rank - 1, rank)});
      ASSERT_TRUE(run->summarize(run->to_device(cases.back().tensor), layout, {true, cases.back().axis}));
    }
    const auto got = run->summaries();
    ASSERT_EQ(got.size(), cases.size());
    for (size_t i = 0; i < cases.size(); ++i) {
      const Case& c = cases[i];
      SCOPED_TRACE("round " + std::to_string(round) + ", " + std::string(name_of(c.tensor.dtype())) + to_string(c.tensor.shape()) + (c.layout == Layout::Plain ? "" : " channels last") + ", axis " + std::to_string(c.axis));
      expect_as_collected(statistics_of(got[i]), collect(c.tensor, c.layout, c.axis));
    }
  }
}

TEST(CudaStatistics, OfLargeTensorsAreTheCpus) {
  Random r(12);
  for (const auto& [shape, axis, layout] : std::vector<std::tuple<Shape, int64_t, Layout>>{{{1, 3, 160, 170}, 1, Layout::Plain}, {{2, 24, 70, 30}, 1, Layout::ChannelsLast}, {{257, 333}, -1, Layout::Plain}, {{1, 100000}, 0, Layout::Plain}, {{33, 2100}, 1, Layout::Plain}}) {
    const auto run = cuda_device()->begin();
    const Tensor x = in_layout(of_all_sizes(r, DType::F32, shape), layout);
    ASSERT_TRUE(run->summarize(run->to_device(x), layout, {true, axis}));
    SCOPED_TRACE(to_string(shape));
    expect_as_collected(statistics_of(run->summaries().at(0)), collect(x, layout, axis));
  }
}

TEST(CudaStatistics, OfTensorsThatBeginAnywhereAreTheCpus) {
  Random r(13);
  for (DType type : {DType::F32, DType::F16, DType::BF16}) {
    const Tensor x = of_all_sizes(r, type, {9, 7, 33});
    const auto run = cuda_device()->begin();
    const Tensor there = run->to_device(x);
    for (int64_t first : {1, 2, 5}) ASSERT_TRUE(run->summarize(there.slice_front(first, 3), Layout::Plain, {true, 1}));
    const auto got = run->summaries();
    for (size_t i = 0; i < 3; ++i) expect_as_collected(statistics_of(got[i]), collect(x.slice_front(std::vector<int64_t>{1, 2, 5}[i], 3), Layout::Plain, 1));
  }
}

TEST(CudaStatistics, SayWhatIsNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  Random r(14);
  for (DType type : {DType::F32, DType::F16, DType::BF16})
    for (int which = 0; which < 8; ++which) {
      Tensor x = cast(random_tensor(r, DType::F32, {3, 5, 70}), DType::F32);
      const auto put = [&](float v) { x.mutable_data<float>()[r.in(0, x.size() - 1)] = v; };
      if (which & 4) put(-inf);
      if (which & 2) put(inf);
      if (which & 1) put(std::nanf(""));
      x = cast(x, type);
      const NotFinite want = not_finite(x);
      const auto run = cuda_device()->begin();
      for (bool histogram : {false, true}) ASSERT_TRUE(run->summarize(run->to_device(x), Layout::Plain, {histogram, 1}));
      for (const TensorSummary& s : run->summaries()) {
        EXPECT_EQ(s.nan, want.nan);
        EXPECT_EQ(s.plus_infinity, want.plus_infinity);
        EXPECT_EQ(s.minus_infinity, want.minus_infinity);
        EXPECT_EQ(s.elements, x.size());
        if (want.any()) {
          EXPECT_THROW(statistics_of(s), Error);
        }
      }
    }
}

TEST(CudaStatistics, OfEmptyTensorsAreEmptyAndOtherTypesAreRefused) {
  const auto run = cuda_device()->begin();
  ASSERT_TRUE(run->summarize(run->make(DType::F32, {0, 4}), Layout::Plain, {true, 1}));
  EXPECT_FALSE(run->summarize(run->make(DType::F64, {3}), Layout::Plain, {true, 0}));
  EXPECT_FALSE(run->summarize(run->make(DType::I32, {3}), Layout::Plain, {true, 0}));
  const auto got = run->summaries();
  ASSERT_EQ(got.size(), 1u);
  expect_as_collected(statistics_of(got[0]), collect(Tensor(DType::F32, {0, 4}), Layout::Plain, 1));
}

/// What a session shows of its values, ordinary runs and recorded ones.
class CudaSummaries : public testing::Test {
 protected:
  /// On the CPU where `device` is null.
  static std::map<ValueId, TensorStatistics> seen(const Session& session, const Graph& graph, const std::map<ValueId, int64_t>& axes, const Tensor& x) {
    std::map<ValueId, Histogram> histograms;
    SampleFindings findings(graph, axes, [&](ValueId id, Histogram& h) { histograms[id] = h; });
    session.run({{"x0", x}}, findings);
    findings.judge();
    auto all = findings.take();
    for (auto& [id, s] : all) s.histogram = histograms.at(id);
    return all;
  }
};

TEST_F(CudaSummaries, OfRecordedRunsAndOthersAreTheCpus) {
  Net net;
  const ValueId x = net.input(DType::F32, {2, 6, 5, 7});
  const ValueId relu = net.add("Relu", {x}), moved = net.add("Transpose", {relu}, {{"perm", std::vector<int64_t>{0, 2, 3, 1}}});
  const ValueId pooled = net.add("MaxPool", {relu}, {{"kernel_shape", std::vector<int64_t>{2, 2}}}), narrow = net.add("Cast", {pooled}, {{"to", int64_t{16}}});
  net.output(moved), net.output(narrow), net.output(net.add("Shape", {x}));
  const Graph& graph = net.graph();
  const std::map<ValueId, int64_t> axes{{x, 1}, {relu, 1}, {moved, -1}, {pooled, 1}, {narrow, 1}};
  SessionOptions options;
  for (const auto& [value, axis] : axes) options.taps.push_back(value);
  const Session cpu(graph, options);
  options.device = cuda_device();
  const Session cuda(graph, options);
  Random r(15);
  for (int run = 0; run < 4; ++run) {
    const Tensor input = of_all_sizes(r, DType::F32, {2, 6, 5, 7});
    const auto want = seen(cpu, graph, axes, input), got = seen(cuda, graph, axes, input);
    ASSERT_EQ(got.size(), axes.size());
    for (const auto& [value, statistics] : want) expect_as_collected(got.at(value), statistics);
  }
  EXPECT_EQ(cuda.recorded_runs(), 1);
}

TEST_F(CudaSummaries, ARunWithoutATapIsNotTheRecordedOneWithIt) {
  Net net;
  const ValueId x = net.input(DType::F32, {40});
  const ValueId y = net.add("Relu", {x});
  net.output(y);
  const Graph& graph = net.graph();
  SessionOptions options;
  options.taps = {y};
  options.device = cuda_device();
  const Session session(graph, options);
  Random r(16);
  for (int i = 0; i < 3; ++i) {
    const Tensor input = of_all_sizes(r, DType::F32, {40});
    EXPECT_EQ(seen(session, graph, {{y, 0}}, input).at(y).elements, 40);
    session.run(std::map<std::string, Tensor>{{"x0", input}});
  }
  EXPECT_EQ(session.recorded_runs(), 2);
}

}  // namespace
}  // namespace infopt::test
