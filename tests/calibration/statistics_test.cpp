#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "calibration/calibration.h"
#include "lib/base/error.h"
#include "lib/ir/edit.h"
#include "lib/runtime/layout.h"
#include "tests/support/model_text.h"

namespace infopt {
namespace {

using test::model_of;
using testing::HasSubstr;

Tensor waves(Shape shape, int phase = 0) {
  Tensor t(DType::F32, std::move(shape));
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = std::sin(0.7f * static_cast<float>((i + phase) * (i + 3) % 977)) * static_cast<float>(1 + i % 5);
  return t;
}

void expect_equal(const TensorStatistics& a, const TensorStatistics& b) {
  EXPECT_EQ(a.samples, b.samples);
  EXPECT_EQ(a.elements, b.elements);
  EXPECT_EQ(a.min, b.min);
  EXPECT_EQ(a.max, b.max);
  EXPECT_EQ(a.channel_min, b.channel_min);
  EXPECT_EQ(a.channel_max, b.channel_max);
  EXPECT_EQ(a.channel_sum, b.channel_sum);
  EXPECT_EQ(a.channel_square, b.channel_square);
  EXPECT_EQ(a.histogram.exponent(), b.histogram.exponent());
  EXPECT_EQ(a.histogram.counts(), b.histogram.counts());
}

TEST(Statistics, AreWhatNumpySays) {
  // x = np.array([[[1, -2], [0.5, 4]], [[3, 0], [-8, 2]]]); x.min((0, 2)), x.max((0, 2)), x.sum((0, 2)), (x * x).sum((0, 2))
  const auto s = collect(Tensor::of<float>({2, 2, 2}, {1, -2, 0.5f, 4, 3, 0, -8, 2}), Layout::Plain, 1);
  EXPECT_EQ(s.samples, 1);
  EXPECT_EQ(s.elements, 8);
  EXPECT_EQ(s.min, -8);
  EXPECT_EQ(s.max, 4);
  EXPECT_EQ(s.channel_min, (std::vector<float>{-2, -8}));
  EXPECT_EQ(s.channel_max, (std::vector<float>{3, 4}));
  EXPECT_EQ(s.channel_sum, (std::vector<double>{2, -1.5}));
  EXPECT_EQ(s.channel_square, (std::vector<double>{14, 84.25}));
  EXPECT_DOUBLE_EQ(s.mean(1), -0.375);
  EXPECT_DOUBLE_EQ(s.square(0), 3.5);
}

TEST(Statistics, NegativeAxesCountFromTheEnd) { expect_equal(collect(waves({2, 3, 5}), Layout::Plain, -1), collect(waves({2, 3, 5}), Layout::Plain, 2)); }

TEST(Statistics, AnAxisThatIsNotThereGivesNoChannels) {
  EXPECT_TRUE(collect(waves({7}), Layout::Plain, 1).channel_sum.empty());
  EXPECT_TRUE(collect(Tensor::scalar(2.0f), Layout::Plain, -1).channel_sum.empty());
}

TEST(Statistics, ChannelsLastEqualsPlain) {
  const Tensor plain = waves({2, 5, 3, 4});
  Tensor last(DType::F32, plain.shape());
  for (int64_t n = 0; n < 2; ++n)
    for (int64_t c = 0; c < 5; ++c)
      for (int64_t p = 0; p < 12; ++p) last.mutable_data<float>()[(n * 12 + p) * 5 + c] = plain.data<float>()[(n * 5 + c) * 12 + p];
  const auto a = collect(plain, Layout::Plain, 1);
  auto b = collect(last, Layout::ChannelsLast, 1);
  for (size_t c = 0; c < 5; ++c) {  // sums may be taken in another order
    EXPECT_NEAR(a.channel_sum[c], b.channel_sum[c], 1e-12);
    EXPECT_NEAR(a.channel_square[c], b.channel_square[c], 1e-10);
  }
  b.channel_sum = a.channel_sum, b.channel_square = a.channel_square;
  expect_equal(a, b);
}

TEST(Statistics, EveryAxisOfAChannelsLastTensorIsWhatItIsInAPlainOne) {
  const Tensor plain = waves({2, 5, 3, 4}), last = convert_layout(plain, Layout::Plain, Layout::ChannelsLast);
  for (int64_t axis : {0, 1, 2, 3, -1, -2}) {
    const auto a = collect(plain, Layout::Plain, axis), b = collect(last, Layout::ChannelsLast, axis);
    EXPECT_EQ(a.channel_min, b.channel_min) << axis;
    EXPECT_EQ(a.channel_max, b.channel_max) << axis;
    ASSERT_EQ(a.channel_sum.size(), b.channel_sum.size());
    for (size_t c = 0; c < a.channel_sum.size(); ++c) EXPECT_NEAR(a.channel_sum[c], b.channel_sum[c], 1e-12) << axis;
  }
}

TEST(Statistics, PartsMergeToTheWhole) {
  const Tensor whole = waves({6, 4, 9});
  TensorStatistics merged;
  for (int64_t i = 0; i < 6; ++i) merged.merge(collect(whole.slice_front(i, 1), Layout::Plain, 1));
  auto expected = collect(whole, Layout::Plain, 1);
  expected.samples = 6;
  for (size_t c = 0; c < 4; ++c) {
    EXPECT_NEAR(merged.channel_sum[c], expected.channel_sum[c], 1e-12);
    EXPECT_NEAR(merged.channel_square[c], expected.channel_square[c], 1e-10);
  }
  expected.channel_sum = merged.channel_sum, expected.channel_square = merged.channel_square;
  expect_equal(merged, expected);
}

TEST(Statistics, EmptyTensorsCountAsSamplesOnly) {
  TensorStatistics s = collect(Tensor(DType::F32, {0, 4}), Layout::Plain, 1);
  EXPECT_EQ(s.elements, 0);
  const auto some = collect(waves({2, 4}), Layout::Plain, 1);
  s.merge(some);
  EXPECT_EQ(s.samples, 2);
  EXPECT_EQ(s.min, some.min);
  EXPECT_EQ(s.channel_sum, some.channel_sum);
}

TEST(Statistics, AnAxisOfChangingLengthIsNoChannelAxis) {
  auto s = collect(waves({2, 4}), Layout::Plain, 1);
  s.merge(collect(waves({2, 5}), Layout::Plain, 1));
  EXPECT_TRUE(s.channel_sum.empty());
  EXPECT_EQ(s.elements, 18);
}

TEST(Statistics, NanAndInfinityAreErrorsWhereverTheyStand) {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()})
    for (int64_t at : {0, 15, 16, 31, 36}) {
      Tensor t = waves({37});
      t.mutable_data<float>()[at] = bad;
      try {
        collect(t, Layout::Plain, -1);
        ADD_FAILURE() << bad << " at " << at;
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), ErrorKind::Malformed);
      }
    }
}

StatisticsSet some_set() {
  StatisticsSet set{"model", "data", 3, {}};
  set.tensors[4] = collect(waves({3, 8}), Layout::Plain, 1);
  set.tensors[9] = collect(Tensor(DType::F32, {0}), Layout::Plain, 1);
  return set;
}

TEST(SavedStatistics, ComeBackAsTheyWere) {
  const StatisticsSet set = some_set(), back = parse_statistics(serialize(set), "f");
  EXPECT_EQ(back.model_key, "model");
  EXPECT_EQ(back.data_key, "data");
  EXPECT_EQ(back.samples, 3);
  ASSERT_EQ(back.tensors.size(), 2u);
  for (const auto& [id, t] : set.tensors) expect_equal(back.tensors.at(id), t);
}

TEST(SavedStatistics, DamageIsAnErrorThatNamesTheFile) {
  const std::string bytes = serialize(some_set());
  std::vector<std::string> damaged{"", "x", bytes.substr(0, bytes.size() / 2), bytes.substr(0, bytes.size() - 1), bytes + "x"};
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{{"infopt statistics", "infopt statistisc"}, {"tensors", "tensosr"}, {"samples", "sampels"}}) {
    damaged.push_back(bytes);
    damaged.back().replace(bytes.find(from), from.size(), to);
  }
  for (const std::string& d : damaged) {
    try {
      parse_statistics(d, "some.stats");
      ADD_FAILURE() << d.size();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Malformed);
      EXPECT_EQ(e.where(), "some.stats");
    }
  }
}

/// Samples of {1, 6} floats from `waves`, the last ones larger.
class Waves : public DataSet {
 public:
  int64_t size() const override { return 9; }
  const std::vector<std::string>& names() const override { return names_; }
  const std::vector<std::string>& unused() const override { return none_; }
  bool has_label() const override { return false; }
  bool next(Sample& sample) override {
    if (at_ == size()) return false;
    sample = {at_, {{"x", waves({1, 6}, static_cast<int>(at_) * 11)}}, {}, 1, "sample " + std::to_string(at_)};
    if (at_ == bad) sample.inputs["x"].mutable_data<float>()[2] = std::numeric_limits<float>::infinity();
    ++at_;
    return true;
  }
  void reset() override { at_ = 0; }
  std::string content_key() const override { return "waves"; }
  int64_t bad = -1;

 private:
  int64_t at_ = 0;
  std::vector<std::string> names_{"x"}, none_;
};

const char* const kNet = "g (float[N,6] x) => (float[N,6] y) { a = Exp(x)\n b = Mul(a, x)\n y = Softmax(b) }";

std::vector<CollectRequest> all_of(const Graph& graph) { return {{graph.find_value("x"), -1}, {graph.find_value("a"), 1}, {graph.find_value("b"), -1}}; }

TEST(Calibration, DoesNotDependOnThreads) {
  const Model model = model_of(kNet);
  std::string expected;
  for (int threads : {1, 2, 5}) {
    Calibration calibration(std::make_shared<Waves>(), {threads, {}});
    const std::string bytes = serialize(calibration.collect(*model.graph, all_of(*model.graph)));
    if (expected.empty()) expected = bytes;
    EXPECT_EQ(bytes, expected) << threads;
  }
}

TEST(Calibration, CollectsOneSampleAtATimeInTheirOrder) {
  const Model model = model_of(kNet);
  Calibration calibration(std::make_shared<Waves>(), {2, {}});
  const auto& set = calibration.collect(*model.graph, all_of(*model.graph));
  TensorStatistics expected;
  for (int i = 0; i < 9; ++i) expected.merge(collect(waves({1, 6}, i * 11), Layout::Plain, 1));
  expect_equal(set.tensors.at(model.graph->find_value("x")), expected);
  EXPECT_EQ(set.samples, 9);
}

TEST(Calibration, NamesSampleAndTensorOfAnInfinity) {
  const Model model = model_of("g (float[N,6] x) => (float[N,6] y) { big = Exp(x)\n y = Neg(big) }");
  auto data = std::make_shared<Waves>();
  data->bad = 4;
  Calibration calibration(data, {1, {}});
  try {
    calibration.collect(*model.graph, {{model.graph->find_value("big"), -1}});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Malformed);
    EXPECT_THAT(e.what(), HasSubstr("x"));
  }
}

TEST(Calibration, SavedStatisticsOfAnotherModelOrOtherDataAreRefused) {
  const Model model = model_of(kNet);
  const auto key = content_key(*model.graph);
  for (const auto& [m, d] : std::vector<std::pair<std::string, std::string>>{{key, "other"}, {"other", "waves"}}) {
    Calibration calibration(std::make_shared<Waves>(), {});
    calibration.reuse({m, d, 9, {}});
    EXPECT_THROW(calibration.collect(*model.graph, {}), Error);
  }
  Calibration calibration(std::make_shared<Waves>(), {});
  calibration.reuse({key, "waves", 9, {}});
  EXPECT_EQ(calibration.collect(*model.graph, {}).samples, 9);
}

TEST(ContentKey, IsOfWhatIsComputedNotOfNames) {
  const std::string key = content_key(*model_of(kNet).graph);
  EXPECT_EQ(content_key(*model_of("h (float[M,6] in) => (float[M,6] out) { p = Exp(in)\n q = Mul(p, in)\n out = Softmax(q) }").graph), key);
  EXPECT_NE(content_key(*model_of("g (float[N,6] x) => (float[N,6] y) { a = Exp(x)\n b = Mul(a, a)\n y = Softmax(b) }").graph), key);
  EXPECT_NE(content_key(*model_of("g (float[N,6] x) => (float[N,6] y) { a = Exp(x)\n b = Mul(a, x)\n y = Softmax<axis=0>(b) }").graph), key);
}

}  // namespace
}  // namespace infopt
