#include "passes/support/awq.h"

#include <gmock/gmock.h>

#include "tests/passes/graph_helper.h"

namespace infopt::test {
namespace {

std::vector<float> powers(size_t count) {
  std::vector<float> s;
  for (size_t i = 0; i < count; ++i) s.push_back(std::ldexp(1.0f, static_cast<int>(i % 5) - 2));
  return s;
}

ValueId input_of(const Model& m, const std::string& op) { return node_of(m, op).input(0); }

/// Divides the input of the node `reader` and multiplies it again there: the function stays.
struct Divided {
  bool done;
  std::string ops;
  double difference;
  Divided(const std::string& text, const std::string& op) {
    const Model before = graph_of(text);
    Model changed = copy_of(before);
    const ValueId x = input_of(changed, op);
    const std::vector<float> s = powers(8);
    {
      GraphEdit edit(*changed.graph);
      std::vector<NodeId> readers;
      for (NodeId id : changed.graph->order())
        if (changed.graph->node(id).op == op) readers.push_back(id);
      done = divide_channels(edit, x, s, readers);
      const ValueId back = edit.add({.op = "Mul"}, {x, edit.add_constant(Tensor::vector(s))});
      for (NodeId id : readers) edit.set_input(id, 0, back);
    }
    const Model again = parse_model(serialize_model(changed));
    ops = test::ops(again);
    difference = test::difference(before, again);
  }
};

TEST(DivideChannels, FindsWhatTakesTheFactors) {
  const std::string head = "g (float[N,8] x, float[8] wg, float[8] wb, float[8,8] w, float[8,8] wv) => (float[N,8] y) ";
  for (const std::string body : {"{ n = LayerNormalization(x, wg, wb) y = Softmax(n) }", "{ n = MatMul(x, w) y = Softmax(n) }", "{ n = Gemm(x, w, wb) y = Softmax(n) }",
                                 "{ a = Relu(x) n = Mul(a, wg) y = Softmax(n) }", "{ a = MatMul(x, w) n = Add(wb, a) y = Softmax(n) }",
                                 "{ a = MatMul(x, w) b = Sigmoid(x) n = Mul(b, a) y = Softmax(n) }", "{ a = MatMul(x, w) b = Sigmoid(a) c = MatMul(x, wv) d = Sub(c, wb) n = Mul(d, b) y = Softmax(n) }"}) {
    const Divided d(head + body, "Softmax");
    EXPECT_TRUE(d.done) << body;
    EXPECT_LT(d.difference, 1e-5) << body;
  }
}

TEST(DivideChannels, ChangesNothingWhereItCannotBeExact) {
  const std::string head = "g (float[N,8] x, float[8] wg, float[8] wb, float[8,8] w) => (float[N,8] y) ";
  for (const std::string body : {"{ y = Softmax(x) }", "{ n = Relu(x) y = Softmax(n) }", "{ n = MatMul(x, w) p = Softmax(n) y = Add(p, n) }",  // another reads it
                                 "{ a = MatMul(x, w) n = Add(wb, a) p = Softmax(n) y = Add(p, a) }", "{ a = MatMul(x, w) n = Mul(a, a) y = Softmax(n) }"}) {
    const Model model = graph_of(head + body);
    Model changed = copy_of(model);
    {
      GraphEdit edit(*changed.graph);
      EXPECT_FALSE(divide_channels(edit, input_of(changed, "Softmax"), powers(8), {node_of(changed, "Softmax").id})) << body;
      EXPECT_FALSE(edit.log().changed()) << body;
    }
  }
}

TEST(ChannelScales, TakeErrorAwayWhereFewChannelsCarryTheEnergy) {
  const size_t k = 64;
  ScaledProduct p{to_vector<float>(noise(DType::F32, {40, 64}, 1)), 40, {DType::I4, 32}};
  std::vector<float> h(k * k, 0.0f);
  for (size_t i = 0; i < k; ++i) h[i * k + i] = i % 16 == 3 ? 400.0f : 1.0f;
  const ChannelScales found = search_channel_scales({p}, h, GridFit::LeastSquares, 1);
  ASSERT_EQ(found.s.size(), k);
  EXPECT_LT(found.gain, 0.75);
  EXPECT_GT(found.s[3], found.s[4]);
  EXPECT_THAT(search_channel_scales({p}, h, GridFit::LeastSquares, 3).s, testing::Eq(found.s));
}

TEST(ChannelScales, AreNoneWhereInputsAreZero) {
  ScaledProduct p{to_vector<float>(noise(DType::F32, {4, 16}, 1)), 4, {DType::I4, 0}};
  EXPECT_TRUE(search_channel_scales({p}, std::vector<float>(256, 0.0f), GridFit::LeastSquares, 1).s.empty());
}

}  // namespace
}  // namespace infopt::test
