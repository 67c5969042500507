#include "calibration/staged_run.h"

#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "calibration/tensor_store.h"
#include "lib/ir/edit.h"
#include "lib/runtime/session.h"
#include "tests/support/model_text.h"

namespace infopt {
namespace {

using test::model_of;

/// Samples that are numbered, in memory.
class Samples : public DataSet {
 public:
  explicit Samples(int64_t count) : count_(count) {}
  int64_t size() const override { return count_; }
  const std::vector<std::string>& names() const override { return names_; }
  const std::vector<std::string>& unused() const override { return unused_; }
  bool has_label() const override { return false; }
  bool next(Sample& sample) override {
    if (at_ == count_) return false;
    sample = {};
    sample.index = at_;
    Tensor x(DType::F32, {1, 4});
    for (int64_t i = 0; i < 4; ++i) x.mutable_data<float>()[i] = static_cast<float>((at_ * 7 + i * 3) % 11) - 5;
    sample.inputs["x"] = x;
    sample.where = "sample " + std::to_string(at_++);
    return true;
  }
  void reset() override { at_ = 0; }
  std::string content_key() const override { return "samples"; }

 private:
  int64_t count_, at_ = 0;
  std::vector<std::string> names_{"x"}, unused_;
};

/// Two products with a residual around the second, the first one's result quantized, and a shape that is computed.
Model residual_net() {
  return model_of(R"(net (float[1,4] x) => (float[1,4] y)
    <float[4,4] w = {1,2,0,-1, 0.5,1,1,0, -2,0,1,1, 0,1,0,2}, float[4,4] v = {0,1,0,0, 1,0,0,2, 0,0,-1,0, 1,0,0,0}, float s = {0.25}, uint8 z = {128}>
    {
      a = MatMul(x, w)
      r = Relu(a)
      q = QuantizeLinear(r, s, z)
      d = DequantizeLinear(q, s, z)
      b = MatMul(d, v)
      c = Add(b, d)
      n = Shape(c)
      e = Reshape(c, n)
      y = Tanh(e)
    })");
}

std::map<int64_t, std::vector<Tensor>> taken(StagedRun& run, const std::vector<ValueId>& values, const std::vector<ValueId>& again = {}) {
  std::map<int64_t, std::vector<Tensor>> all;
  std::mutex mutex;
  run.advance(values, [&](int64_t sample, const std::vector<Tensor>& t) {
    std::lock_guard lock(mutex);
    all[sample] = t;
  }, again);
  return all;
}

std::map<int64_t, std::vector<Tensor>> whole(const Graph& graph, const std::vector<ValueId>& values, int64_t count) {
  SessionOptions o;
  o.fetches = values;
  const Session session(graph, o);
  Samples data(count);
  Sample sample;
  std::map<int64_t, std::vector<Tensor>> all;
  while (data.next(sample)) all[sample.index] = session.run(sample.inputs);
  return all;
}

void expect_equal(const std::map<int64_t, std::vector<Tensor>>& a, const std::map<int64_t, std::vector<Tensor>>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [sample, tensors] : a) {
    ASSERT_EQ(tensors.size(), b.at(sample).size());
    for (size_t i = 0; i < tensors.size(); ++i) EXPECT_EQ(to_vector<double>(tensors[i]), to_vector<double>(b.at(sample)[i])) << "sample " << sample << ", value " << i;
  }
}

class StagedRuns : public testing::TestWithParam<std::pair<int, int64_t>> {
 protected:
  StagedOptions options() const { return {.threads = GetParam().first, .memory = GetParam().second}; }
  Calibration calibration{std::make_shared<Samples>(5), {}};
};

TEST_P(StagedRuns, GiveWhatAWholeRunGives) {
  const Model model = residual_net();
  const Graph& g = *model.graph;
  const std::vector<ValueId> first{g.find_value("a")}, second{g.find_value("d"), g.find_value("b")}, third{g.find_value("y")};
  StagedRun run(g, calibration, {first[0], second[0], second[1], third[0]}, options());
  EXPECT_EQ(run.samples(), 5);
  expect_equal(taken(run, first), whole(g, first, 5));
  expect_equal(taken(run, second), whole(g, second, 5));
  expect_equal(taken(run, third), whole(g, third, 5));
}

TEST_P(StagedRuns, ComputeNothingThatLiesBehindAgain) {
  Model model = residual_net();
  const Graph& g = *model.graph;
  const ValueId d = g.find_value("d"), y = g.find_value("y");
  const auto expected = whole(g, {y}, 5);
  StagedRun run(g, calibration, {d, y}, options());
  taken(run, {d});
  GraphEdit(*model.graph).set_constant(g.find_value("w"), Tensor::zeros(DType::F32, {4, 4}));  // behind: without effect
  expect_equal(taken(run, {y}), expected);
}

TEST_P(StagedRuns, SeeChangesOfWhatLiesAhead) {
  Model model = residual_net();
  const Graph& g = *model.graph;
  const ValueId d = g.find_value("d"), y = g.find_value("y");
  StagedRun run(g, calibration, {d, y}, options());
  taken(run, {d});
  GraphEdit(*model.graph).set_constant(g.find_value("v"), Tensor::zeros(DType::F32, {4, 4}));
  expect_equal(taken(run, {y}), whole(g, {y}, 5));
}

TEST_P(StagedRuns, PeekLeavesWhatIsHeld) {
  const Model model = residual_net();
  const Graph& g = *model.graph;
  const ValueId d = g.find_value("d"), y = g.find_value("y");
  StagedRun run(g, calibration, {d, y}, options());
  taken(run, {d});
  const auto changed = g.clone();
  GraphEdit(*changed).set_constant(g.find_value("v"), Tensor::zeros(DType::F32, {4, 4}));
  std::map<int64_t, std::vector<Tensor>> seen;
  std::mutex mutex;
  run.peek(*changed, {y}, [&](int64_t sample, const std::vector<Tensor>& t) {
    std::lock_guard lock(mutex);
    seen[sample] = t;
  });
  expect_equal(seen, whole(*changed, {y}, 5));
  expect_equal(taken(run, {y}), whole(g, {y}, 5));
}

TEST_P(StagedRuns, HoldWhatIsAskedForAgainAndWhatIsMadeOnTheWay) {
  Model model = residual_net();
  const Graph& g = *model.graph;
  const ValueId x = g.find_value("x"), a = g.find_value("a"), d = g.find_value("d"), b = g.find_value("b");
  const auto expected = whole(g, {a, b}, 5), codes = whole(g, {d}, 5);
  StagedRun run(g, calibration, {x, a, d, b}, options());
  expect_equal(taken(run, {d, b}, {d}), whole(g, {d, b}, 5));
  GraphEdit(*model.graph).set_constant(g.find_value("w"), Tensor::zeros(DType::F32, {4, 4}));
  expect_equal(taken(run, {d}), codes);
  std::map<int64_t, std::vector<Tensor>> first;
  for (const auto& [sample, tensors] : expected) first[sample] = {tensors[0]};
  expect_equal(taken(run, {a}), first);
  EXPECT_EQ(taken(run, {x}).size(), 5U);
  EXPECT_EQ(run.held() + run.spilled(), 0);
}

TEST_P(StagedRuns, HoldCodesRatherThanWhatTheyStandFor) {
  const Model model = residual_net();
  const Graph& g = *model.graph;
  StagedRun run(g, calibration, {g.find_value("d"), g.find_value("y")}, options());
  taken(run, {g.find_value("d")});
  EXPECT_EQ(run.held() + run.spilled(), 5 * 4);
  taken(run, {g.find_value("y")});
  EXPECT_EQ(run.held() + run.spilled(), 0);
}

INSTANTIATE_TEST_SUITE_P(ThreadsAndMemory, StagedRuns, testing::Values(std::pair{1, int64_t{1} << 20}, std::pair{2, int64_t{1} << 20}, std::pair{2, int64_t{0}}, std::pair{1, int64_t{40}}));

TEST(TensorStore, GivesBackWhatWentToTheFile) {
  TensorStore store(10);
  const Tensor small = Tensor::vector(std::vector<float>{1, 2}), large = Tensor::vector(std::vector<double>{3, 4, 5}), more = Tensor::vector(std::vector<int64_t>{6, 7, 8, 9});
  const int64_t a = store.put(small), b = store.put(large), c = store.put(more);
  EXPECT_EQ(store.held(), 8);
  EXPECT_EQ(store.spilled(), 56);
  EXPECT_EQ(to_vector<double>(store.get(b)), (std::vector<double>{3, 4, 5}));
  store.drop(b);
  EXPECT_EQ(to_vector<double>(store.get(c)), (std::vector<double>{6, 7, 8, 9}));
  EXPECT_EQ(to_vector<double>(store.get(a)), (std::vector<double>{1, 2}));
  store.drop(a), store.drop(c);
  EXPECT_EQ(store.held() + store.spilled(), 0);
}

}  // namespace
}  // namespace infopt
