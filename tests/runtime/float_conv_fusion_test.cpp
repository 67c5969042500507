// Pad → Conv → BatchNormalization → Add → Relu or Clip as one convolution, against ONNX's formulas in double and the nodes by themselves.
#include <cmath>
#include <functional>
#include <thread>

#include "lib/runtime/layout.h"
#include "tests/runtime/float_conv_case.h"

namespace infopt::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// oneDNN chooses its blocks, and with them the order of a sum, by the number of threads; every number comes near, each time with the same bits.
void expect_near_for_threads(const Graph& graph, const Feeds& feeds, const Shape& shape, const std::vector<Summed>& want) {
  for (int threads : {2, 3, 5}) {
    SCOPED_TRACE(testing::Message() << threads << " threads");
    const Session session(graph, {.fetches = {}, .taps = {}, .threads = threads});
    const auto got = session.run(feeds);
    expect_near(got[0], shape, want);
    expect_same_bits(session.run(feeds), got);
    if (testing::Test::HasFatalFailure()) return;
  }
}

/// The graph's only output, fused, unfused and with more threads, comes near `want`; `steps`: what is left of it.
void expect_conv(Net& net, const Feeds& feeds, const std::string& steps, const Shape& shape, const std::vector<Summed>& want, bool threads = false) {
  const Graph& graph = net.graph();
  EXPECT_EQ(steps_of(graph), steps);
  const auto got = Session(graph).run(feeds);
  expect_near(got[0], shape, want);
  expect_near(run_plain(graph, feeds)[0], shape, want);
  if (threads) expect_near_for_threads(graph, feeds, shape, want);
}

TEST(FloatConvFusion, EqualsTheFormulasInDouble) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    const FloatConvCase c(r);
    Net net;
    const ValueId x = net.input(DType::F32, c.x), z = c.residual.defined() ? net.input(DType::F32, c.out) : kNone;
    net.output(c.build(net, x, z));
    Feeds feeds{{x, c.given}};
    if (z != kNone) feeds.emplace(z, c.residual);
    expect_conv(net, feeds, c.steps(), c.out, c.reference(c.residual), seed % 20 == 0);
    if (HasFatalFailure()) return;
  }
}

TEST(FloatConvFusion, EndsWithGeluAndSiluInPieces) {
  for (unsigned seed = 0; seed < 120; ++seed) {
    SCOPED_TRACE(seed);
    Random r(7000 + seed);
    FloatConvCase c(r);
    c.bounds = FloatConvCase::Bounds::None, c.low = -kInfinity, c.high = kInfinity;
    const bool gelu = r.chance(2);
    Net net;
    const ValueId x = net.input(DType::F32, c.x), z = c.residual.defined() ? net.input(DType::F32, c.out) : kNone;
    const ValueId v = c.build(net, x, z);
    if (gelu) {
      const ValueId a = net.add("Add", {net.add("Erf", {net.add("Div", {v, net.number(1.41421356f)})}), net.number(1)});
      net.output(r.chance(2) ? net.add("Mul", {net.add("Mul", {v, a}), net.number(0.5f)}) : net.add("Mul", {net.add("Mul", {net.number(0.5f), v}), a}));
    } else {
      net.output(net.add("Mul", {v, net.add("Sigmoid", {v})}));
    }
    Feeds feeds{{x, c.given}};
    if (z != kNone) feeds.emplace(z, c.residual);
    auto want = c.reference(c.residual);
    for (Summed& s : want) s.value *= gelu ? 0.5 * (1 + std::erf(s.value / std::sqrt(2.0))) : 1 / (1 + std::exp(-s.value));
    EXPECT_EQ(steps_of(net.graph()), c.steps());
    expect_near(Session(net.graph()).run(feeds)[0], c.out, want);
    expect_near(run_plain(net.graph(), feeds)[0], c.out, want);
    if (HasFatalFailure()) return;
  }
}

/// Where the residual comes from, and whether somebody reads it afterwards.
enum class Source { Plain, ChannelsLast, View };

TEST(FloatConvFusion, LeavesAResidualThatOthersRead) {
  for (unsigned seed = 0; seed < 120; ++seed) {
    SCOPED_TRACE(seed);
    Random r(1000 + seed);
    FloatConvCase c(r);
    c.residual = random_floats(r, c.out);
    const Source source = r.pick({Source::Plain, Source::ChannelsLast, Source::View});
    const bool read_later = r.chance(2), is_output = r.chance(4);
    Net net;
    const ValueId x = net.input(DType::F32, c.x), given = net.input(DType::F32, c.out);
    // Each gives its input's elements as they are, in memory of its own.
    const Tensor ones = Tensor::of<float>({c.out[1]}, std::vector<float>(static_cast<size_t>(c.out[1]), 1.0f));
    Shape unit(c.out.size(), 1);
    unit[0] = c.out[1];
    ValueId z = source == Source::Plain ? net.add("Neg", {net.add("Neg", {given})}) : net.add("Conv", {given, net.constant(ones.reshaped(unit))}, {{"group", c.out[1], {}}});
    ValueId seen = z;
    if (source == Source::View) z = net.add("Identity", {z});
    net.output(c.build(net, x, z));
    if (read_later) net.output(net.add("Abs", {seen}));
    if (is_output) net.output(seen);
    const Graph& graph = net.graph();
    const Feeds feeds{{x, c.given}, {given, c.residual}};
    const Session session(graph);
    const auto got = session.run(feeds);
    expect_near(got[0], c.out, c.reference(c.residual));
    for (size_t i = 1; i < got.size() && !HasFatalFailure(); ++i) expect_same_bits(got[i], run_plain(graph, feeds)[i]);
    if (HasFatalFailure()) return;
    expect_same_bits(session.run(feeds), got);
    if (seed % 20 == 0) expect_near_for_threads(graph, feeds, c.out, c.reference(c.residual));
    if (HasFatalFailure()) return;
  }
}

TEST(FloatConvFusion, AddsAResidualThatIsRepeated) {
  for (unsigned seed = 0; seed < 120; ++seed) {
    SCOPED_TRACE(seed);
    Random r(2000 + seed);
    FloatConvCase c(r);
    Shape shape = c.out;
    switch (r.in(0, 3)) {
      case 0: shape.insert(shape.begin(), 2); break;
      case 1: shape.erase(shape.begin(), shape.begin() + r.in(1, static_cast<int64_t>(shape.size()))); break;
      default:
        for (int64_t& d : shape) d = r.chance(2) ? 1 : d;
    }
    Net net;
    const ValueId x = net.input(DType::F32, c.x), z = net.open_input(DType::F32);
    net.output(c.build(net, x, z));
    const Tensor residual = random_floats(r, shape);
    // What ONNX's Add makes of both, from the formula's convolution as a constant.
    const auto y = c.reference();
    std::vector<float> values, sizes;
    for (const Summed& s : y) values.push_back(static_cast<float>(s.value)), sizes.push_back(static_cast<float>(s.size));
    Net sum;
    const ValueId other = sum.constant(residual);
    sum.output(sum.add("Add", {sum.constant(Tensor::of<float>(c.out, values)), other}));
    sum.output(sum.add("Add", {sum.constant(Tensor::of<float>(c.out, sizes)), sum.add("Abs", {other})}));
    const auto expected = Session(sum.graph()).run(Feeds{});
    std::vector<Summed> want;
    for (int64_t i = 0; i < expected[0].size(); ++i)
      want.push_back({std::min(std::max(expected[0].data<float>()[i], c.low), c.high), expected[1].data<float>()[i]});
    expect_conv(net, {{x, c.given}, {z, residual}}, c.steps(), expected[0].shape(), want, seed % 20 == 0);
    if (HasFatalFailure()) return;
  }
}

TEST(FloatConvFusion, AddsTwoConvolutions) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    Random r(3000 + seed);
    FloatConvCase c(r);
    Net net;
    const ValueId x = net.input(DType::F32, c.x), other = net.input(DType::F32, c.x);
    const Tensor second = random_floats(r, c.x);
    FloatConvCase d = c;
    d.given = second;
    d.low = -kInfinity, d.high = kInfinity;
    d.bounds = FloatConvCase::Bounds::None;
    const ValueId z = d.build(net, other, kNone);
    net.output(c.build(net, x, z));
    auto want = c.reference();
    const auto more = d.reference();
    for (size_t i = 0; i < want.size(); ++i) want[i] = {std::clamp<double>(want[i].value + more[i].value, c.low, c.high), want[i].size + more[i].size};
    // The second operand's convolution runs last.
    const std::string steps = c.joins_pad() || c.extra.empty() ? "Conv Conv" : c.swapped ? "Pad Conv Pad Conv" : "Pad Pad Conv Conv";
    expect_conv(net, {{x, c.given}, {other, second}}, steps, c.out, want);
    if (HasFatalFailure()) return;
  }
}

TEST(FloatConvFusion, AddsItsOwnInput) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    Random r(4000 + seed);
    FloatConvCase c(r);
    c.x[1] = c.groups = 1 + r.in(0, 7);
    c.w.assign(c.x.size(), 3);
    c.w[0] = c.x[1], c.w[1] = 1;
    c.strides.assign(c.spatial(), 1), c.dilations.assign(c.spatial(), 1), c.pads.assign(2 * c.spatial(), 1);
    c.auto_pad = "NOTSET", c.extra = {}, c.bias = {}, c.norm[0] = {};
    c.given = random_floats(r, c.x), c.weights = random_floats(r, c.w, -1, 1);
    c.resolve();
    Net net;
    const ValueId input = net.input(DType::F32, c.x);
    // Plain, or channels last in memory that only these two read.
    ValueId x = input;
    if (r.chance(2)) {
      Shape unit(c.x.size(), 1);
      unit[0] = c.x[1];
      x = net.add("Conv", {input, net.constant(Tensor::of<float>(unit, std::vector<float>(static_cast<size_t>(c.x[1]), 1.0f)))}, {{"group", c.x[1], {}}});
    }
    net.output(c.build(net, x, x));
    expect_conv(net, {{input, c.given}}, x == input ? "Conv" : "Conv Conv", c.out, c.reference(c.given));
    if (HasFatalFailure()) return;
  }
}

/// One small convolution of x (1, 2, 5, 5) with 3 columns.
struct Small {
  Random r{5};
  Net net;
  ValueId x;
  Tensor given = random_floats(r, {1, 2, 5, 5});
  Tensor weights = random_floats(r, {3, 2, 3, 3});
  explicit Small(int64_t opset = 21) : net(opset) { x = net.input(DType::F32, {1, 2, 5, 5}); }
  ValueId conv(ValueId from, Attributes attributes = {}) { return net.add("Conv", {from, net.constant(weights)}, std::move(attributes)); }
  ValueId channels(std::vector<float> v) { return net.constant(Tensor::vector(v)); }
};

TEST(FloatConvFusion, AddsAConvolutionToItself) {
  Small s;
  const ValueId y = s.conv(s.x);
  s.net.output(s.net.add("Add", {y, y}));
  expect_unfused(s.net, {{s.x, s.given}});
}

TEST(FloatConvFusion, TakesAPadOfZerosAlone) {
  struct Other {
    const char* what;
    std::function<ValueId(Small&)> make;
    int64_t opset = 21;
    Feeds feeds = {};
  };
  const std::vector<int64_t> around{0, 0, 1, 1, 0, 0, 1, 1};
  auto mode = [&](const char* name) { return [&, name](Small& s) { return s.net.add("Pad", {s.x, s.net.integers(around)}, {{"mode", std::string(name), {}}}); }; };
  auto pads = [](std::vector<int64_t> p) { return [p](Small& s) { return s.net.add("Pad", {s.x, s.net.integers(p)}); }; };
  const std::vector<Other> others{
      {"reflect", mode("reflect")},
      {"edge", mode("edge")},
      {"wrap", mode("wrap")},
      {"a value", [&](Small& s) { return s.net.add("Pad", {s.x, s.net.integers(around), s.net.number(0.5f)}); }},
      {"NaN", [&](Small& s) { return s.net.add("Pad", {s.x, s.net.integers(around), s.net.number(NAN)}); }},
      {"negative", pads({0, 0, -1, 1, 0, 0, 1, 1})},
      {"a batch", pads({1, 0, 1, 1, 0, 0, 1, 1})},
      {"a batch behind", pads({0, 0, 1, 1, 1, 0, 1, 1})},
      {"axes", [&](Small& s) { return s.net.add("Pad", {s.x, s.net.integers({1, 2, 0, 1}), kNone, s.net.integers({2, 3})}); }},
      {"a value of old", [&](Small& s) { return s.net.add("Pad", {s.x}, {{"pads", around, {}}, {"value", 0.5f, {}}}); }, 10},
  };
  for (const Other& other : others) {
    SCOPED_TRACE(other.what);
    Small s(other.opset);
    s.net.output(s.conv(other.make(s)));
    expect_unfused(s.net, {{s.x, s.given}});
  }
  {
    SCOPED_TRACE("a channel");
    Small s;
    s.weights = random_floats(s.r, {3, 4, 3, 3});
    s.net.output(s.conv(pads({0, 1, 1, 1, 0, 1, 1, 1})(s)));
    expect_unfused(s.net, {{s.x, s.given}});
  }
  {
    SCOPED_TRACE("given with the run");
    Small s;
    const ValueId p = s.net.input(DType::I64, {8});
    s.net.output(s.conv(s.net.add("Pad", {s.x, p})));
    expect_unfused(s.net, {{s.x, s.given}, {p, Tensor::vector(around)}});
  }
  {
    SCOPED_TRACE("a value given with the run");
    Small s;
    const ValueId v = s.net.input(DType::F32, {});
    s.net.output(s.conv(s.net.add("Pad", {s.x, s.net.integers(around), v})));
    expect_unfused(s.net, {{s.x, s.given}, {v, Tensor::scalar(0.0f)}});
  }
  {
    SCOPED_TRACE("read by others");
    Small s;
    const ValueId padded = s.net.add("Pad", {s.x, s.net.integers(around)});
    s.net.output(s.conv(padded)), s.net.output(padded);
    expect_unfused(s.net, {{s.x, s.given}});
  }
  {
    SCOPED_TRACE("attributes of old");
    Small s(10);
    s.net.output(s.conv(s.net.add("Pad", {s.x}, {{"pads", around, {}}})));
    (void)expect_fused(s.net, {{s.x, s.given}}, "Conv");
  }
}

/// Pads around axes of no elements.
TEST(FloatConvFusion, PadsNothing) {
  for (bool with_norm : {false, true}) {
    Small s;
    const ValueId x = s.net.input(DType::F32, {1, 2, 0, 3});
    ValueId y = s.conv(s.net.add("Pad", {x, s.net.integers({0, 0, 2, 1, 0, 0, 2, 1})}));
    if (with_norm) y = s.net.add("BatchNormalization", {y, s.channels({1, 2, 3}), s.channels({4, 5, 6}), s.channels({0, 1, 0}), s.channels({1, 1, 1})});
    s.net.output(s.net.add("Relu", {y}));
    (void)expect_fused(s.net, {{s.x, s.given}, {x, Tensor(DType::F32, {1, 2, 0, 3})}}, "Conv");
  }
}

TEST(FloatConvFusion, TakesConstantStatisticsAlone) {
  const std::vector<float> one{1, 1, 1}, zero{0, 0, 0};
  const struct {
    const char* what;
    std::vector<float> variance;
    bool joins;
  } variances[]{{"zero", {0, 1, 2}, true}, {"negative", {1, -0.5f, 1}, false}, {"minus epsilon", {1, -1e-5f, 1}, false}, {"infinite", {1, kInfinity, 1}, true}, {"NaN", {1, NAN, 1}, false}};
  for (const auto& v : variances) {
    SCOPED_TRACE(v.what);
    Small s;
    s.net.output(s.net.add("BatchNormalization", {s.conv(s.x), s.channels({1, 0.5f, 2}), s.channels(one), s.channels({0.25f, 0, 1}), s.channels(v.variance)}));
    if (v.joins) (void)expect_fused(s.net, {{s.x, s.given}}, "Conv");
    else expect_unfused(s.net, {{s.x, s.given}});
  }
  {
    SCOPED_TRACE("training");
    Small s;
    const NodeId norm = s.net.add_node("BatchNormalization", {s.conv(s.x), s.channels(one), s.channels(zero), s.channels(zero), s.channels(one)}, 3, {{"training_mode", int64_t{1}, {}}});
    for (size_t i : {0u, 1u, 2u}) s.net.output(s.net.edit().graph().node(norm).outputs[i]);
    expect_unfused(s.net, {{s.x, s.given}});
  }
  {
    SCOPED_TRACE("training with one output");
    Small s;
    s.net.output(s.net.add("BatchNormalization", {s.conv(s.x), s.channels(one), s.channels(zero), s.channels(zero), s.channels(one)}, {{"training_mode", int64_t{1}, {}}}));
    expect_unfused(s.net, {{s.x, s.given}});
  }
  for (size_t which = 1; which <= 4; ++which) {
    SCOPED_TRACE(testing::Message() << "input " << which << " of the run");
    Small s;
    const ValueId v = s.net.input(DType::F32, {3});
    std::vector<ValueId> in{s.conv(s.x), s.channels(one), s.channels(zero), s.channels(zero), s.channels(one)};
    in[which] = v;
    s.net.output(s.net.add("BatchNormalization", in));
    expect_unfused(s.net, {{s.x, s.given}, {v, Tensor::vector<float>({0.5f, 2, 1})}});
  }
}

/// An input's default is no constant: the run may give another.
TEST(FloatConvFusion, TakesConstantWeightsAlone) {
  for (size_t which : {1u, 2u}) {
    Small s;
    const Tensor bias = Tensor::vector<float>({1, 2, 3});
    std::vector<ValueId> in{s.x, s.net.constant(s.weights), s.net.constant(bias)};
    in[which] = s.net.input(DType::F32, which == 1 ? Shape{3, 2, 3, 3} : Shape{3});
    s.net.edit().set_constant(in[which], which == 1 ? s.weights : bias);
    const ValueId y = s.net.add("Conv", in);
    s.net.output(s.net.add("BatchNormalization", {y, s.channels({1, 2, 3}), s.channels({4, 5, 6}), s.channels({0, 1, 0}), s.channels({1, 1, 1})}));
    expect_unfused(s.net, {{s.x, s.given}});
    expect_unfused(s.net, {{s.x, s.given}, {in[which], random_floats(s.r, which == 1 ? Shape{3, 2, 3, 3} : Shape{3})}});
  }
}

TEST(FloatConvFusion, BoundsAreThoseOfClip) {
  const struct {
    float low, high;
    bool joins;
  } cases[]{{-kInfinity, kInfinity, true}, {0, kInfinity, true}, {-kInfinity, 0, true}, {kInfinity, kInfinity, true}, {-kInfinity, -kInfinity, true}, {1, 1, true},
            {0, 6, true}, {2, -2, false}, {kInfinity, -kInfinity, false}, {NAN, 1, false}, {0, NAN, false}};
  for (const auto& c : cases)
    for (bool pad : {false, true}) {
      SCOPED_TRACE(testing::Message() << c.low << " to " << c.high << (pad ? ", padded" : ""));
      Small s;
      const ValueId x = pad ? s.net.add("Pad", {s.x, s.net.integers({0, 0, 1, 1, 0, 0, 1, 1})}) : s.x;
      s.net.output(s.net.add("Clip", {s.conv(x), s.net.number(c.low), s.net.number(c.high)}));
      const Feeds feeds{{s.x, s.given}};
      if (c.joins) (void)expect_fused(s.net, feeds, "Conv");
      else if (!pad) expect_unfused(s.net, feeds);
      else (void)expect_fused(s.net, feeds, "Conv Clip");
    }
}

/// What others see on the way stays as it is.
TEST(FloatConvFusion, HidesNothingThatIsSeen) {
  enum How { Output, Tapped, Captured, ReadTwice };
  for (const How how : {Output, Tapped, Captured, ReadTwice})
    for (size_t place = 0; place < 4; ++place) {
      SCOPED_TRACE(testing::Message() << "seen " << how << " at " << place);
      Small s;
      const ValueId z = s.net.input(DType::F32, {1, 3, 5, 5}), choice = s.net.input(DType::Bool, {});
      std::vector<ValueId> at{s.net.add("Pad", {s.x, s.net.integers({0, 0, 1, 1, 0, 0, 1, 1})})};
      at.push_back(s.conv(at[0]));
      at.push_back(s.net.add("BatchNormalization", {at[1], s.channels({1, 2, -3}), s.channels({4, 5, 6}), s.channels({0, 1, 0}), s.channels({1, 1, 1})}));
      at.push_back(s.net.add("Add", {at[2], z}));
      s.net.output(s.net.add("Relu", {at[3]}));
      const ValueId seen = at[place];
      if (how == Output) s.net.output(seen);
      if (how == ReadTwice) s.net.output(s.net.add("Transpose", {seen}));
      if (how == Captured) {
        std::vector<Attribute> branches;
        std::vector<ValueId> captures{seen};
        for (const char* name : {"then_branch", "else_branch"}) {
          auto body = std::make_shared<Graph>();
          GraphEdit inside(*body);
          inside.add_output(inside.add({.op = name[0] == 't' ? "Neg" : "Identity"}, {inside.add_outer(seen, "seen")}));
          branches.push_back({name, body, {}});
        }
        const ValueId y = s.net.edit().add_value();
        const NodeId branch = s.net.edit().add_node({.op = "If", .attributes = branches}, {choice}, {y});
        s.net.edit().set_captures(branch, captures);
        s.net.output(y);
      }
      const Graph& graph = s.net.graph();
      const Feeds feeds{{s.x, s.given}, {z, random_floats(s.r, {1, 3, 5, 5})}, {choice, Tensor::scalar(true)}};
      std::vector<Tensor> taps[2];
      std::vector<Tensor> outputs[2];
      for (bool fuse : {false, true}) {
        SessionOptions options;
        options.fuse = fuse;
        if (how == Tapped) options.taps = {seen};
        outputs[fuse] = Session(graph, options).run(feeds, [&](ValueId v, const Tensor& t, Layout layout) {
          EXPECT_EQ(v, seen);
          taps[fuse].push_back(convert_layout(t, layout, Layout::Plain).clone());
        });
      }
      Agreement agreement;
      for (size_t i = 0; i < outputs[0].size(); ++i) agreement.compare(outputs[1][i], outputs[0][i]);
      ASSERT_EQ(taps[0].size(), how == Tapped ? 1u : 0u);
      ASSERT_EQ(taps[1].size(), taps[0].size());
      for (size_t i = 0; i < taps[0].size(); ++i) agreement.compare(taps[1][i], taps[0][i]);
      SessionOptions options;
      if (how == Tapped) options.taps = {seen};
      const std::string steps = steps_of(graph, options), most = steps_of(graph, {.fetches = {}, .taps = options.taps, .fuse = false});
      EXPECT_LT(steps.size(), most.size()) << steps;  // the others still join
    }
}

/// Sizes whose pads differ at the end only, seen one after the other by one session.
TEST(FloatConvFusion, FollowsSizesThatChange) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Random r(5000 + seed);
    FloatConvCase c(r);
    if (c.extra.empty()) c.auto_pad = r.pick({"SAME_UPPER", "SAME_LOWER"});
    c.resolve();
    Net net;
    const ValueId x = net.open_input(DType::F32), z = c.residual.defined() ? net.open_input(DType::F32) : kNone;
    net.output(c.build(net, x, z));
    const Graph& graph = net.graph();
    const Session session(graph);
    for (int i = 0; i < 6; ++i) {
      c.x[0] = r.in(0, 3);
      for (size_t a = 2; a < c.x.size(); ++a) c.x[a] += r.in(0, 2);
      c.resolve();
      c.given = random_floats(r, c.x);
      Feeds feeds{{x, c.given}};
      if (z != kNone) feeds.emplace(z, c.residual = random_floats(r, c.out));
      const auto y = session.run(feeds);
      expect_near(y[0], c.out, c.reference(c.residual));
      if (HasFatalFailure()) return;
    }
  }
}

TEST(FloatConvFusion, ServesManyThreadsAtOnce) {
  Random r(1);
  FloatConvCase c(r);
  c.extra = {}, c.auto_pad = "SAME_UPPER", c.residual = {}, c.bounds = FloatConvCase::Bounds::Relu, c.low = 0, c.high = kInfinity;
  Net net;
  const ValueId x = net.open_input(DType::F32);
  net.output(c.build(net, x, kNone));
  const Session session(net.graph());
  std::vector<FloatConvCase> cases;
  std::vector<Tensor> results(8);
  for (size_t i = 0; i < results.size(); ++i) {
    for (size_t a = 2; a < c.x.size(); ++a) c.x[a] += r.in(0, 2);
    c.resolve();
    c.given = random_floats(r, c.x);
    cases.push_back(c);
  }
  std::vector<std::thread> threads;
  for (size_t i = 0; i < results.size(); ++i)
    threads.emplace_back([&, i] { results[i] = session.run(Feeds{{x, cases[i].given}})[0]; });
  for (std::thread& t : threads) t.join();
  for (size_t i = 0; i < results.size(); ++i) expect_near(results[i], cases[i].out, cases[i].reference(Tensor()));
}

/// How a run ends: the kind of its error, or none.
std::string ending(const Graph& graph, const Feeds& feeds, bool fuse) {
  try {
    SessionOptions options;
    options.fuse = fuse;
    (void)Session(graph, options).run(feeds);
    return "runs";
  } catch (const Error& e) {
    return "kind " + std::to_string(static_cast<int>(e.kind()));
  }
}

TEST(FloatConvFusion, RefusesWhatDoesNotFit) {
  const struct {
    const char* what;
    Shape x, w, z;
    int64_t groups;
  } cases[]{{"channels", {1, 3, 5, 5}, {3, 2, 3, 3}, {1}, 1}, {"rank", {1, 2, 5}, {3, 2, 3, 3}, {1}, 1},        {"groups that don't divide the columns", {1, 4, 5, 5}, {3, 2, 3, 3}, {1}, 2},
            {"no group", {1, 0, 5, 5}, {3, 2, 3, 3}, {1}, 0}, {"a window too large", {1, 2, 2, 2}, {3, 2, 3, 3}, {1}, 1}, {"a sum that doesn't broadcast", {1, 2, 5, 5}, {3, 2, 3, 3}, {1, 3, 2, 3}, 1},
            {"less than a group", {1, 2, 5, 5}, {3, 2, 3, 3}, {1}, -1}, {"a scalar", {}, {3, 2, 3, 3}, {1}, 1}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    Random r(3);
    Net net;
    const ValueId x = net.open_input(DType::F32), z = net.open_input(DType::F32);
    const ValueId y = net.add("Conv", {x, net.constant(random_floats(r, c.w))}, {{"group", c.groups, {}}});
    net.output(net.add("Relu", {net.add("Add", {y, z})}));
    const Graph& graph = net.graph();
    const Feeds feeds{{x, random_floats(r, c.x)}, {z, random_floats(r, c.z)}};
    EXPECT_EQ(ending(graph, feeds, true), ending(graph, feeds, false));
    EXPECT_NE(ending(graph, feeds, true), "runs");
  }
}

}  // namespace
}  // namespace infopt::test
