// Where a Q/DQ graph means something else than the integer kernels do, or somebody sees what they would hide: it stays right.
#include <limits>

#include "tests/runtime/fusion_harness.h"

namespace infopt::test {
namespace {

/// DequantizeLinear(codes), DequantizeLinear(weights) → MatMul → QuantizeLinear, its parameters open to a change.
struct Plain {
  Net net{23};
  Random r{11};
  Step from{DType::U8, 0.1f, 100}, to{DType::U8, 0.4f, 120};
  Shape shape{4, 6};
  DType weight_type = DType::I8;
  Attributes in_attributes, out_attributes, weight_attributes;
  ValueId x = kNone, in_scale = kNone, weight_scale = kNone, out_scale = kNone, in_zero = kNone, weight_codes = kNone;
  ValueId real = kNone, weights = kNone, product = kNone, y = kNone;

  Plain() { x = net.input(DType::U8, shape); }
  void build() {
    auto given = [](ValueId v, auto otherwise) { return v != kNone ? v : otherwise(); };
    const ValueId zero = given(in_zero, [&] { return net.constant(zero_tensor(from.type, from.zero)); });
    real = net.add("DequantizeLinear", {x, given(in_scale, [&] { return net.number(from.scale); }), zero}, in_attributes);
    const ValueId codes = given(weight_codes, [&] { return net.constant(random_codes(r, weight_type, {6, 5})); });
    weights = net.add("DequantizeLinear", {codes, given(weight_scale, [&] { return net.number(0.01f); })}, weight_attributes);
    product = net.add("MatMul", {real, weights});
    y = net.add("QuantizeLinear",
                {product, given(out_scale, [&] { return net.number(to.scale); }), net.constant(zero_tensor(to.type, to.zero))},
                out_attributes);
    net.output(y);
  }
  Feeds feeds() { return {{x, random_codes(r, DType::U8, shape)}}; }
};

TEST(IntegerFusionMeaning, FoldsThePlainCase) {
  Plain p;
  p.build();
  (void)expect_fused(p.net, p.feeds(), "MatMul");
}

TEST(IntegerFusionMeaning, KeepsScalesThatAreNoOrdinaryNumbers) {
  for (const float scale :
       {0.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -0.1f, 1e-40f, 1e-30f, 1e30f})
    for (const int where : {0, 1, 2}) {
      SCOPED_TRACE(testing::Message() << scale << " at " << where);
      Plain p;
      (where == 0 ? p.in_scale : where == 1 ? p.weight_scale : p.out_scale) = p.net.number(scale);
      p.build();
      Agreement agreement;
      (void)expect_fused(p.net, p.feeds(), "", agreement);
    }
}

TEST(IntegerFusionMeaning, KeepsBlocksAndRowsOfScales) {
  Plain blocks;
  blocks.in_scale = blocks.net.constant(Tensor::of<float>({4, 2}, {0.1f, 0.2f, 0.3f, 0.1f, 0.2f, 0.3f, 0.1f, 0.2f}));
  blocks.in_zero = blocks.net.constant(Tensor::zeros(DType::U8, {4, 2}));
  blocks.in_attributes = {{"block_size", int64_t{3}, {}}};
  blocks.build();
  expect_kept(blocks.net, blocks.feeds());

  Plain columns;
  columns.in_scale = columns.net.constant(Tensor::vector<float>({0.1f, 0.2f, 0.3f, 0.1f, 0.2f, 0.3f}));
  columns.in_zero = columns.net.constant(Tensor::zeros(DType::U8, {6}));
  columns.build();
  expect_kept(columns.net, columns.feeds());

  Plain weight_blocks;
  weight_blocks.weight_scale =
      weight_blocks.net.constant(Tensor::of<float>({2, 5}, {0.1f, 0.2f, 0.3f, 0.1f, 0.2f, 0.3f, 0.1f, 0.2f, 0.1f, 0.2f}));
  weight_blocks.weight_attributes = {{"block_size", int64_t{3}, {}}, {"axis", int64_t{0}, {}}};
  weight_blocks.build();
  expect_kept(weight_blocks.net, weight_blocks.feeds());
}

TEST(IntegerFusionMeaning, KeepsOtherPrecisionsAndTypes) {
  Plain rounds_to_half;
  rounds_to_half.out_attributes = {{"precision", int64_t{10}, {}}};
  rounds_to_half.build();
  (void)expect_fused(rounds_to_half.net, rounds_to_half.feeds(), "MatMul QuantizeLinear");

  Plain words;
  words.to = {DType::U16, 0.001f, 30000};
  words.build();
  Agreement agreement;
  const auto y = expect_fused(words.net, words.feeds(), "MatMul QuantizeLinear", agreement);
  EXPECT_EQ(y[0].dtype(), DType::U16);

  Plain nibbles;
  nibbles.weight_codes = nibbles.net.constant(cast(
      Tensor::of<int8_t>({6, 5}, {1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2}),
      DType::I4));
  nibbles.build();
  expect_kept(nibbles.net, nibbles.feeds());
}

/// Scales, zero points and weights that a run may replace, though they have a default.
TEST(IntegerFusionMeaning, KeepsWhatARunMayReplace) {
  for (const int where : {0, 1, 2}) {
    SCOPED_TRACE(where);
    Plain p;
    auto with_default = [&](Tensor t) {
      const ValueId v = p.net.input(t.dtype(), t.shape());
      p.net.edit().set_constant(v, t);
      return v;
    };
    ValueId open = kNone;
    Tensor other;
    if (where == 0) open = p.in_scale = with_default(Tensor::scalar(0.1f)), other = Tensor::scalar(0.03f);
    if (where == 1)
      open = p.weight_codes = with_default(random_codes(p.r, DType::I8, {6, 5})), other = random_codes(p.r, DType::I8, {6, 5});
    if (where == 2) open = p.in_zero = with_default(Tensor::scalar<uint8_t>(90)), other = Tensor::scalar<uint8_t>(3);
    p.build();
    Feeds feeds = p.feeds();
    for (int run = 0; run < 2; ++run) {
      if (where == 1) (void)expect_fused(p.net, feeds, "MatMul");  // codes on both sides
      else expect_kept(p.net, feeds);
      feeds[open] = other;
    }
  }
}

/// 70,000 terms of 255·128 are beyond int32, and so is a bias of nearly 2^31 steps with anything added to it.
TEST(IntegerFusionMeaning, SumsBeyond32BitsStayRight) {
  Tensor most(DType::I8, {70000, 1}), x(DType::U8, {1, 70000});
  std::fill_n(most.mutable_data<int8_t>(), 70000, int8_t{-128});
  std::fill_n(x.mutable_data<uint8_t>(), 70000, uint8_t{255});
  Net net;
  const ValueId in = net.input(DType::U8, {1, 70000}), w = net.add("DequantizeLinear", {net.constant(most), net.number(0.01f)});
  net.output(net.add("MatMul", {net.dequantize(in, {DType::U8, 0.01f, 0}), w}));
  EXPECT_NEAR(to_vector<double>(Session(net.graph()).run(Feeds{{in, x}})[0])[0], -228480.0, 10.0);

  Net biased;
  const ValueId a = biased.input(DType::U8, {1, 2}),
                v = biased.add("DequantizeLinear", {biased.constant(Tensor::of<int8_t>({2, 1}, {127, 127})), biased.number(1)});
  const ValueId c = biased.add("DequantizeLinear", {biased.constant(Tensor::vector<int32_t>({2147483600})), biased.number(1)});
  biased.output(biased.add("Gemm", {biased.dequantize(a, {DType::U8, 1, 0}), v, c}));
  EXPECT_EQ(steps_of(biased.graph()), "Gemm");
  EXPECT_NEAR(to_vector<double>(Session(biased.graph()).run(Feeds{{a, Tensor::of<uint8_t>({1, 2}, {255, 255})}})[0])[0], 2147548370.0,
              300.0);
}

/// Every value of the graph as an output besides, and tapped: each is what it is without fusions.
TEST(IntegerFusionMeaning, ShowsWhatIsBetween) {
  for (const int which : {0, 1, 2, 3}) {
    SCOPED_TRACE(which);
    Plain p;
    p.build();
    const ValueId seen = which == 0 ? p.real : which == 1 ? p.weights : which == 2 ? p.product : p.y;
    const Feeds feeds = p.feeds();
    const Graph& graph = p.net.graph();
    const std::vector<ValueId> both{p.y, seen};
    const auto got = Session(graph, {.fetches = both}).run(feeds), want = run_plain(graph, feeds, {.fetches = both});
    for (size_t i = 0; i < 2; ++i) Agreement().compare(got[i], want[i]);
    Tensor tapped;
    const auto tap = [&](ValueId v, const Tensor& t, Layout) {
      if (v == seen) tapped = t.clone();
    };
    (void)Session(graph, {.taps = {seen}}).run(feeds, tap);
    Agreement().compare(tapped, want[1]);
    p.net.output(seen);
    (void)expect_fused(p.net, feeds, "");
  }
}

/// A value that is fed isn't computed; where a tap keeps it visible, what follows reads what was fed.
TEST(IntegerFusionMeaning, ReadsAValueThatIsFed) {
  for (const int which : {0, 1}) {
    Plain p;
    p.build();
    const ValueId given = which == 0 ? p.product : p.y;
    const Graph& graph = p.net.graph();
    Feeds feeds = p.feeds();
    feeds[given] = which == 0 ? Tensor::vector(std::vector<float>(20, 2.0f)).reshaped({4, 5}) : random_codes(p.r, DType::U8, {4, 5});
    expect_same_bits(Session(graph, {.taps = {given}}).run(feeds), run_plain(graph, feeds));
  }
}

/// A body reads the float between.
TEST(IntegerFusionMeaning, ShowsABodyWhatItCaptures) {
  Plain p;
  p.build();
  GraphEdit& edit = p.net.edit();
  auto branch = [&](const char* op) {
    auto body = std::make_shared<Graph>();
    body->opsets[""] = 23;
    GraphEdit inner(*body);
    inner.add_output(inner.add({.op = op}, {inner.add_outer(p.product)}));
    return body;
  };
  const ValueId choice = p.net.input(DType::Bool, {});
  const ValueId out = edit.add_value();
  const NodeId node =
      edit.add_node({.op = "If", .attributes = {{"then_branch", branch("Neg"), {}}, {"else_branch", branch("Abs"), {}}}}, {choice}, {out});
  edit.set_captures(node, {p.product});
  edit.add_output(out);
  for (const bool value : {false, true}) {
    Feeds feeds = p.feeds();
    feeds[choice] = Tensor::scalar(value);
    Agreement agreement;
    (void)expect_fused(p.net, feeds, "", agreement);
  }
}

/// Many readers of one DequantizeLinear: each product reads the codes, and the other reader the floats.
TEST(IntegerFusionMeaning, SharesADequantizedValue) {
  Random r(2);
  Net net;
  const Step s{DType::I8, 0.05f, 3};
  const ValueId x = net.input(DType::I8, {3, 4}), real = net.dequantize(x, s);
  for (int i = 0; i < 2; ++i) {
    const ValueId w = net.add("DequantizeLinear", {net.constant(random_codes(r, DType::I8, {4, 5})), net.number(0.02f)});
    net.output(net.quantize(net.add("MatMul", {real, w}), {DType::I8, 0.1f, -5}));
  }
  const Feeds feeds{{x, random_codes(r, DType::I8, {3, 4})}};
  (void)expect_fused(net, feeds, "MatMul MatMul");
  net.output(net.add("Softmax", {real}));
  (void)expect_fused(net, feeds, "DequantizeLinear MatMul MatMul Softmax");
}

/// Weights behind what a plan computes once: codes that a QuantizeLinear makes of constants are known to the rules, and aren't steps.
TEST(IntegerFusionMeaning, FollowsConstantsThroughNodes) {
  Plain p;
  Tensor floats(DType::F32, {5, 6});
  for (int64_t i = 0; i < 30; ++i) floats.mutable_data<float>()[i] = p.r.real(-1, 1);
  const ValueId turned = p.net.add("Transpose", {p.net.constant(floats)});
  p.weight_codes = p.net.add("QuantizeLinear", {turned, p.net.number(0.01f), p.net.constant(zero_tensor(DType::I8, 0))});
  p.build();
  (void)expect_fused(p.net, p.feeds(), "MatMul");
  const Graph& graph = p.net.graph();
  EXPECT_EQ(steps_of(graph, {.fold = false}), "Transpose QuantizeLinear DequantizeLinear DequantizeLinear MatMul QuantizeLinear");
  const Feeds feeds = p.feeds();
  Agreement().compare(Session(graph, {.fold = false}).run(feeds)[0], run_plain(graph, feeds)[0]);
}

}  // namespace
}  // namespace infopt::test
