// Rotary embedding as exporters write it, as one step against the same graphs step by step, bit for bit, and against its formula.
#include <gmock/gmock.h>

#include "tests/runtime/fusion_harness.h"

namespace infopt::test {
namespace {

constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();

Tensor random_floats(Random& r, Shape shape) {
  Tensor t(DType::F32, std::move(shape));
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(-3, 3);
  return t;
}

/// How x's two parts are written.
enum class Cut { Slices, MeasuredSlices, Split, SplitSizes };

class Rope {
 public:
  Rope(Net& net, Random& r, int64_t rank, int64_t depth) : net_(net), r_(r), rank_(rank), depth_(depth) {}

  /// x·cos + turned(x)·sin, the operands in any order.
  ValueId sum(ValueId x, ValueId cos, ValueId sin, bool pairs, Cut cut) {
    cut_up(x, pairs, cut);
    const ValueId turned = pairs ? interleave(x, net_.add("Neg", {second_}), first_) : net_.add("Concat", {net_.add("Neg", {second_}), first_}, {last_axis(rank_)});
    const ValueId a = either("Mul", x, cos), b = either("Mul", turned, sin);
    return either("Add", a, b);
  }
  /// The parts' results put together.
  ValueId joined(ValueId x, ValueId cos, ValueId sin, bool pairs, Cut cut) {
    cut_up(x, pairs, cut);
    const ValueId real = net_.add("Sub", {either("Mul", first_, cos), either("Mul", second_, sin)});
    const ValueId imaginary = either("Add", either("Mul", second_, cos), either("Mul", sin, first_));
    return pairs ? interleave(x, real, imaginary) : net_.add("Concat", {real, imaginary}, {last_axis(rank_)});
  }

 private:
  ValueId either(const std::string& op, ValueId a, ValueId b) { return r_.chance(2) ? net_.add(op, {a, b}) : net_.add(op, {b, a}); }
  int64_t last(int64_t rank) { return r_.chance(2) ? -1 : rank - 1; }
  Attribute last_axis(int64_t rank) { return {"axis", last(rank), {}}; }
  ValueId dimension(ValueId x, int64_t axis) { return net_.add("Gather", {net_.add("Shape", {x}), net_.constant(Tensor::scalar<int64_t>(axis))}); }
  ValueId unsqueezed(ValueId x) { return net_.add("Unsqueeze", {x, net_.integers({0})}); }

  ValueId slice(ValueId x, ValueId start, ValueId end, int64_t step) {
    std::vector<ValueId> in{x, start, end, net_.integers({last(rank_)})};
    if (step != 1 || r_.chance(2)) in.push_back(net_.integers({step}));
    return net_.add("Slice", in);
  }

  void cut_up(ValueId x, bool pairs, Cut cut) {
    if (pairs) {
      first_ = slice(x, net_.integers({0}), net_.integers({r_.chance(2) ? kEnd : depth_}), 2);
      second_ = slice(x, net_.integers({1}), net_.integers({kEnd}), 2);
    } else if (cut == Cut::Split || cut == Cut::SplitSizes) {
      std::vector<ValueId> in{x};
      Attributes attributes{last_axis(rank_)};
      if (cut == Cut::SplitSizes) in.push_back(net_.integers({depth_ / 2, depth_ - depth_ / 2}));
      else attributes.push_back({"num_outputs", int64_t{2}, {}});
      const auto& out = net_.graph().node(net_.add_node("Split", in, 2, attributes)).outputs;
      first_ = out[0], second_ = out[1];
    } else if (cut == Cut::Slices) {
      first_ = slice(x, net_.integers({0}), net_.integers({depth_ / 2}), 1);
      second_ = slice(x, net_.integers({depth_ / 2}), net_.integers({r_.pick({kEnd, depth_})}), 1);
    } else {
      const ValueId half = unsqueezed(net_.add("Cast", {net_.add("Div", {dimension(x, last(rank_)), net_.constant(Tensor::scalar<int64_t>(2))})}, {{"to", int64_t{7}, {}}}));
      first_ = slice(x, net_.integers({0}), half, 1);
      second_ = slice(x, half, r_.chance(2) ? net_.integers({kEnd}) : unsqueezed(dimension(x, rank_ - 1)), 1);
    }
  }

  ValueId interleave(ValueId x, ValueId a, ValueId b) {
    const ValueId both[] = {net_.add("Unsqueeze", {a, net_.integers({last(rank_ + 1)})}), net_.add("Unsqueeze", {b, net_.integers({last(rank_ + 1)})})};
    const ValueId concat = net_.add("Concat", {both[0], both[1]}, {last_axis(rank_ + 1)});
    ValueId shape = net_.add("Shape", {x});
    if (r_.chance(3)) {
      std::vector<ValueId> sizes;
      for (int64_t i = 0; i + 1 < rank_; ++i) sizes.push_back(r_.chance(2) ? net_.integers({0}) : unsqueezed(dimension(x, i)));
      sizes.push_back(net_.integers({r_.pick<int64_t>({-1, depth_})}));
      shape = net_.add("Concat", sizes, {{"axis", int64_t{0}, {}}});
    } else if (r_.chance(2)) {
      std::vector<int64_t> sizes(static_cast<size_t>(rank_), 0);
      sizes.back() = -1;
      shape = net_.integers(sizes);
    }
    return net_.add("Reshape", {concat, shape});
  }

  Net& net_;
  Random& r_;
  int64_t rank_, depth_;
  ValueId first_ = kNone, second_ = kNone;
};

void expect_one_step(const Graph& graph, const Feeds& feeds, size_t steps = 2) {
  const auto plan = Session(graph).plan();
  EXPECT_EQ(plan.size(), steps) << steps_of(graph);
  EXPECT_NE(plan.at(0).kernel.find("rotation"), std::string::npos) << plan.at(0).kernel;
  const auto got = Session(graph).run(feeds);
  expect_same_bits(got, run_plain(graph, feeds));
  expect_any_threads(graph, feeds, got);
}

TEST(Rotary, IsOneStepInEveryFormThatExportsHave) {
  Random r(31);
  for (int i = 0; i < 120 && !HasFatalFailure(); ++i) {
    const bool sum = r.chance(2), pairs = r.chance(2), transposed = r.chance(2);
    const Cut cut = r.pick({Cut::Slices, Cut::MeasuredSlices, Cut::Split, Cut::SplitSizes});
    const int64_t b = r.in(1, 3), h = r.in(1, 4), s = r.pick<int64_t>({1, 5, 33}), d = 2 * r.pick<int64_t>({1, 3, 8, 16, 32}), width = sum ? d : d / 2;
    SCOPED_TRACE(testing::Message() << i << " sum " << sum << " pairs " << pairs << " cut " << static_cast<int>(cut) << " b" << b << " h" << h << " s" << s << " d" << d);
    Net net(18);
    const Shape shape = transposed ? Shape{b, s, h, d} : Shape{b, h, s, d};
    const Shape angles = r.pick<Shape>({{s, width}, {1, 1, s, width}, {b, 1, s, width}, {b, h, s, width}, {s, 1}, {}});
    const ValueId given = net.input(DType::F32, shape), cos = net.input(DType::F32, angles), sin = net.input(DType::F32, angles);
    const ValueId x = transposed ? net.add("Transpose", {given}, {{"perm", std::vector<int64_t>{0, 2, 1, 3}, {}}}) : given;
    Rope rope(net, r, 4, d);
    net.output(net.add("Softmax", {sum ? rope.sum(x, cos, sin, pairs, cut) : rope.joined(x, cos, sin, pairs, cut)}));
    expect_one_step(net.graph(), {{given, random_floats(r, shape)}, {cos, random_floats(r, angles)}, {sin, random_floats(r, angles)}});
  }
}

// The formula of "RoFormer: Enhanced Transformer with Rotary Position Embedding": pairs turned by position · base^(−2i/d), in double.
TEST(Rotary, TurnsPairsByTheAngleOfTheirPosition) {
  Random r(32);
  const int64_t heads = 3, length = 40, depth = 32, half = depth / 2;
  for (const bool pairs : {false, true}) {
    Tensor cos(DType::F32, {length, depth}), sin(DType::F32, {length, depth});
    const auto angle = [&](int64_t s, int64_t i) { return static_cast<double>(s) * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(depth)); };
    for (int64_t s = 0; s < length; ++s)
      for (int64_t i = 0; i < depth; ++i) {
        cos.mutable_data<float>()[s * depth + i] = static_cast<float>(std::cos(angle(s, pairs ? i / 2 : i % half)));
        sin.mutable_data<float>()[s * depth + i] = static_cast<float>(std::sin(angle(s, pairs ? i / 2 : i % half)));
      }
    Net net(18);
    const ValueId x = net.input(DType::F32, {1, heads, length, depth});
    Rope rope(net, r, 4, depth);
    net.output(rope.sum(x, net.constant(cos), net.constant(sin), pairs, Cut::Slices));
    const Tensor in = random_floats(r, {1, heads, length, depth}), y = Session(net.graph()).run({{x, in}})[0];
    EXPECT_NE(Session(net.graph()).plan().at(0).kernel.find("rotation"), std::string::npos);
    for (int64_t row = 0; row < heads * length; ++row)
      for (int64_t i = 0; i < half; ++i) {
        const int64_t at = row * depth + (pairs ? 2 * i : i), other = at + (pairs ? 1 : half);
        const double a = in.data<float>()[at], b = in.data<float>()[other], t = angle(row % length, i);
        ASSERT_NEAR(y.data<float>()[at], a * std::cos(t) - b * std::sin(t), 1e-6);
        ASSERT_NEAR(y.data<float>()[other], b * std::cos(t) + a * std::sin(t), 1e-6);
      }
  }
}

TEST(Rotary, TakesHalvesThatArentEqual) {
  Random r(33);
  for (const int64_t depth : {5, 9})
    for (const Cut cut : {Cut::Slices, Cut::MeasuredSlices, Cut::Split}) {
      Net net(18);
      const ValueId x = net.input(DType::F32, {2, 3, depth}), cos = net.input(DType::F32, {3, depth}), sin = net.input(DType::F32, {3, depth});
      Rope rope(net, r, 3, depth);
      net.output(net.add("Softmax", {rope.sum(x, cos, sin, false, cut)}));
      expect_one_step(net.graph(), {{x, random_floats(r, {2, 3, depth})}, {cos, random_floats(r, {3, depth})}, {sin, random_floats(r, {3, depth})}});
    }
}

TEST(Rotary, BroadcastsXToItsAngles) {
  Random r(34);
  Net net(18);
  const ValueId x = net.input(DType::F32, {1, 3, 8}), cos = net.input(DType::F32, {4, 3, 8}), sin = net.input(DType::F32, {2, 1, 1, 8});
  Rope rope(net, r, 3, 8);
  net.output(net.add("Softmax", {rope.sum(x, cos, sin, false, Cut::Slices)}));
  expect_one_step(net.graph(), {{x, random_floats(r, {1, 3, 8})}, {cos, random_floats(r, {4, 3, 8})}, {sin, random_floats(r, {2, 1, 1, 8})}});
}

TEST(Rotary, KeepsXForThoseWhoReadItBesides) {
  Random r(35);
  Net net(18);
  const ValueId given = net.input(DType::F32, {2, 5, 3, 8}), cos = net.input(DType::F32, {5, 8}), sin = net.input(DType::F32, {5, 8});
  const ValueId x = net.add("Transpose", {given}, {{"perm", std::vector<int64_t>{0, 2, 1, 3}, {}}});
  Rope rope(net, r, 4, 8);
  net.output(rope.sum(x, cos, sin, false, Cut::Slices));
  net.output(net.add("Softmax", {x}));
  const Feeds feeds{{given, random_floats(r, {2, 5, 3, 8})}, {cos, random_floats(r, {5, 8})}, {sin, random_floats(r, {5, 8})}};
  expect_same_bits(Session(net.graph()).run(feeds), run_plain(net.graph(), feeds));
}

// Graphs that look like it and mean something else.
TEST(Rotary, LeavesOtherGraphsAlone) {
  Random r(36);
  const auto check = [&](auto build) {
    Net net(18);
    const ValueId x = net.input(DType::F32, {2, 3, 8}), cos = net.input(DType::F32, {3, 8}), sin = net.input(DType::F32, {3, 8});
    const auto part = [&](int64_t from, int64_t to, int64_t step = 1, int64_t axis = 2) { return net.add("Slice", {x, net.integers({from}), net.integers({to}), net.integers({axis}), net.integers({step})}); };
    net.output(build(net, x, cos, sin, part));
    const Graph& graph = net.graph();
    for (const auto& line : Session(graph).plan()) EXPECT_EQ(line.kernel.find("rotation"), std::string::npos);
    const Feeds feeds{{x, random_floats(r, {2, 3, 8})}, {cos, random_floats(r, {3, 8})}, {sin, random_floats(r, {3, 8})}};
    expect_same_bits(Session(graph).run(feeds), run_plain(graph, feeds));
  };
  const auto sum = [](Net& net, ValueId x, ValueId cos, ValueId turned, ValueId sin) { return net.add("Add", {net.add("Mul", {x, cos}), net.add("Mul", {turned, sin})}); };
  const Attributes last{{"axis", int64_t{2}, {}}};
  const auto neg = [](Net& net, ValueId v) { return net.add("Neg", {v}); };
  // The halves in their own order; both negated; of x and of another; cut at two places; along another axis; another x in the straight product.
  check([&](Net& net, ValueId x, ValueId cos, ValueId sin, auto part) { return sum(net, x, cos, net.add("Concat", {neg(net, part(0, 4)), part(4, kEnd)}, last), sin); });
  check([&](Net& net, ValueId x, ValueId cos, ValueId sin, auto part) { return sum(net, x, cos, net.add("Concat", {part(4, kEnd), neg(net, part(0, 4))}, last), sin); });
  check([&](Net& net, ValueId x, ValueId cos, ValueId sin, auto part) { return sum(net, x, cos, net.add("Concat", {neg(net, part(3, 7)), part(0, 4)}, last), sin); });
  check([&](Net& net, ValueId x, ValueId cos, ValueId sin, auto part) { return sum(net, x, cos, net.add("Concat", {neg(net, part(4, 0x7fffffff)), part(0, 4, 2), part(1, 4, 2)}, last), sin); });
  check([&](Net& net, ValueId x, ValueId cos, ValueId sin, auto part) { return sum(net, x, cos, net.add("Concat", {neg(net, part(1, kEnd, 1, 1)), part(0, 1, 1, 1)}, {{"axis", int64_t{1}, {}}}), sin); });
  check([&](Net& net, ValueId x, ValueId cos, ValueId sin, auto part) { return sum(net, net.add("Neg", {x}), cos, net.add("Concat", {neg(net, part(4, kEnd)), part(0, 4)}, last), sin); });
  // Pairs that a Reshape brings to another shape, and pairs joined as halves.
  const auto wide = [](Net& net, ValueId v) { return net.add("Unsqueeze", {v, net.integers({-1})}); };
  check([&](Net& net, ValueId x, ValueId cos, ValueId sin, auto part) {
    const ValueId both = net.add("Concat", {wide(net, neg(net, part(1, kEnd, 2))), wide(net, part(0, kEnd, 2))}, {{"axis", int64_t{-1}, {}}});
    return sum(net, x, cos, net.add("Reshape", {both, net.integers({-1, 1, 3, 8})}), sin);
  });
  check([&](Net& net, ValueId x, ValueId cos, ValueId sin, auto part) { return sum(net, x, cos, net.add("Concat", {neg(net, part(1, kEnd, 2)), part(0, kEnd, 2)}, last), sin); });
  check([&](Net& net, ValueId x, ValueId cos, ValueId sin, auto part) {
    const ValueId both = net.add("Concat", {wide(net, neg(net, part(4, kEnd))), wide(net, part(0, 4))}, {{"axis", int64_t{-1}, {}}});
    return sum(net, x, cos, net.add("Reshape", {both, net.integers({0, 0, -1})}), sin);
  });
}

TEST(Rotary, ShapesThatDontFitAreErrors) {
  Random r(37);
  Net net(18);
  const ValueId x = net.open_input(DType::F32), cos = net.open_input(DType::F32), sin = net.open_input(DType::F32);
  Rope rope(net, r, 3, 8);
  const ValueId first = net.add("Slice", {x, net.integers({0}), net.integers({4}), net.integers({-1})}), second = net.add("Slice", {x, net.integers({4}), net.integers({8}), net.integers({-1})});
  net.output(net.add("Add", {net.add("Mul", {x, cos}), net.add("Mul", {net.add("Concat", {net.add("Neg", {second}), first}, {{"axis", int64_t{-1}, {}}}), sin})}));
  const Graph& graph = net.graph();
  ASSERT_EQ(Session(graph).plan().size(), 1u);
  const auto run = [&](Shape x_shape, Shape cos_shape) { Session(graph).run({{x, random_floats(r, x_shape)}, {cos, random_floats(r, cos_shape)}, {sin, random_floats(r, {8})}}); };
  EXPECT_NO_THROW(run({3, 8}, {3, 8}));
  EXPECT_THROW(run({3, 10}, {3, 10}), Error);
  EXPECT_THROW(run({3, 8}, {2, 8}), Error);
  EXPECT_THROW(run({3, 8}, {3, 4}), Error);
  EXPECT_THROW(run({}, {8}), Error);
}

}  // namespace
}  // namespace infopt::test
