#include <algorithm>

#include "passes/support/layers.h"
#include "tests/passes/graph_helper.h"

namespace infopt::test {
namespace {

Model with(const std::string& text, const std::string& name, const std::function<float(size_t, float)>& change) {
  Model model = graph_of(text);
  GraphEdit edit(*model.graph);
  const ValueId id = model.graph->find_value(name);
  Tensor t = model.graph->constant(id)->clone();
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = change(static_cast<size_t>(i), t.data<float>()[i]);
  edit.set_constant(id, t);
  return model;
}

const std::string kProducts = "g (float[N,6] x, float[6,20] w1, float[20] wb, float[20,12] w2) => (float[N,12] y) { a = MatMul(x, w1) b = Add(a, wb) c = Tanh(b) y = MatMul(c, w2) }";
/// Channel 7 has weights of 5 to 9 in all rows that read it; the others are below 1.
Model outliers() {
  return with(kProducts, "w2", [](size_t i, float w) { return i / 12 == 7 ? (i % 2 ? 7.0f : -7.0f) + std::clamp(w, -2.0f, 2.0f) : std::clamp(w, -1.0f, 1.0f) * 0.9f; });
}

TEST(SplitChannels, AnOutlierIsMadeTwiceAndReadByHalves) {
  const Model before = outliers();
  EditLog log;
  const Model split = after(before, "split_channels", {{"expand", 0.05}, {"bits", int64_t{4}}}, &log);
  EXPECT_EQ(log.notes, std::vector<std::string>{"MatMul → a: 1 of 20 neurons made twice"});
  EXPECT_LE(difference(before, split), kRounding);
  const auto was = to_vector<double>(constant_of(before, "MatMul", 1));
  Tensor now;
  for (NodeId id : split.graph->order())
    if (split.graph->node(id).is("MatMul")) now = *split.graph->constant(split.graph->node(id).input(1));
  ASSERT_EQ(now.shape(), (Shape{21, 12}));
  const auto old = [&] {
    for (NodeId id : before.graph->order())
      if (before.graph->node(id).is("MatMul") && before.graph->constant(before.graph->node(id).input(1))->dim(0) == 20) return *before.graph->constant(before.graph->node(id).input(1));
    return Tensor();
  }();
  for (int64_t o = 0; o < 12; ++o) {
    const auto w = static_cast<double>(old.data<float>()[7 * 12 + o]), a = static_cast<double>(now.data<float>()[7 * 12 + o]), b = static_cast<double>(now.data<float>()[8 * 12 + o]);
    const double step = std::fabs(w) / 2 / 7;  // of 4 bits, the range halved
    EXPECT_NEAR(a, w / 2 + step / 4, 1e-5);
    EXPECT_NEAR(b, w / 2 - step / 4, 1e-5);
    EXPECT_EQ(std::nearbyint(a / step - 1e-6) + std::nearbyint(b / step + 1e-6), std::nearbyint(w / step)) << o;
  }
}

TEST(SplitChannels, EveryKindOfReaderKeepsTheFunction) {
  for (const std::string text : {
           "g (float[N,3,6,6] x, float[8,3,3,3] w1, float[8] wb, float[8,1,3,3] w2, float[5,8,1,1] w3) => (float[N,5,M,K] y) { a = Conv(x, w1, wb) b = Relu(a) c = Conv <group = 8, pads = [1, 1, 1, 1]> (b, w2) y = Conv(c, w3) }",
           "g (float[N,3,6,6] x, float[8,3,3,3] w1, float[5,128] w3, float[5] wc) => (float[N,5] y) { a = Conv(x, w1) b = Relu(a) c = Flatten(b) y = Gemm <transB = 1> (c, w3, wc) }",
           "g (float[N,3,6,6] x, float[4,3,1,1] w1, float[4,3,1,1] w2, float[5,8,1,1] w3) => (float[N,5,6,6] y) { a = Conv(x, w1) b = Conv(x, w2) c = Concat <axis = 1> (a, b) d = Sigmoid(c) y = Conv(d, w3) }",
       }) {
    SCOPED_TRACE(text);
    const Model before = with(text, "w3", [](size_t i, float w) { return i % 4 == 1 ? 9 * w : w; });
    EditLog log;
    const Model split = after(before, "split_channels", {{"expand", 0.3}, {"per_channel", false}}, &log);
    EXPECT_NE(log.notes.at(0).find("made twice"), std::string::npos);
    EXPECT_EQ(ops(split), ops(before));
    EXPECT_LE(difference(before, split), kRounding);
  }
}

TEST(SplitChannels, EvenWeightsStay) {
  const Model before = with(kProducts, "w2", [](size_t i, float) { return i % 3 ? 0.5f : -0.5f; });
  EditLog log;
  const Model split = after(before, "split_channels", {}, &log);
  EXPECT_EQ(log.notes, std::vector<std::string>{"no channel's weights are outliers in what reads it"});
  EXPECT_LE(difference(before, split), 0);
}

}  // namespace
}  // namespace infopt::test
