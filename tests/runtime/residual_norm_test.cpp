// Normalizations with the Add before them, as one step, against the same graphs step by step.
#include <gmock/gmock.h>

#include "tests/runtime/fusion_harness.h"

namespace infopt::test {
namespace {

Tensor random_floats(Random& r, Shape shape) {
  Tensor t(DType::F32, std::move(shape));
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(-3, 3);
  return t;
}

/// As the operator LayerNormalization or RMSNormalization, or the latter from its pieces.
enum class Form { Layer, Rms, RmsPieces };

ValueId normalize(Net& net, Random& r, ValueId x, int64_t n, Form form, Attributes attributes = {}) {
  const ValueId gain = net.constant(random_floats(r, {n}));
  attributes.push_back({"epsilon", 1e-3f, {}});
  if (form == Form::Layer) return net.add("LayerNormalization", r.chance(2) ? std::vector<ValueId>{x, gain} : std::vector<ValueId>{x, gain, net.constant(random_floats(r, {n}))}, attributes);
  if (form == Form::Rms) return net.add("RMSNormalization", {x, gain}, attributes);
  const ValueId mean = net.add("ReduceMean", {net.add("Pow", {x, net.number(2)}), net.integers({-1})});
  const ValueId root = net.add("Sqrt", {net.add("Add", {mean, net.number(1e-3f)})});
  return net.add("Mul", {gain, net.add("Div", {x, root})});
}

/// As without fusions, to the bit unless it is of pieces, which divide; on any number of threads.
void expect_plain(const Graph& graph, const Feeds& feeds, Form form) {
  const auto got = Session(graph).run(feeds), want = run_plain(graph, feeds);
  Agreement agreement;
  if (form != Form::RmsPieces) expect_same_bits(got, want);
  else
    for (size_t i = 0; i < want.size(); ++i) agreement.compare(got[i], want[i]);
  expect_any_threads(graph, feeds, got);
}

/// `steps` are left.
void check(Net& net, const Feeds& feeds, size_t steps, Form form = Form::Layer) {
  const Graph& graph = net.graph();
  EXPECT_EQ(Session(graph).plan().size(), steps) << steps_of(graph);
  expect_plain(graph, feeds, form);
}

TEST(ResidualNorm, TakesItsAddAndKeepsTheSumForThoseBehind) {
  Random r(21);
  for (const Form form : {Form::Layer, Form::Rms, Form::RmsPieces})
    for (int i = 0; i < 16 && !testing::Test::HasFatalFailure(); ++i) {
      SCOPED_TRACE(testing::Message() << static_cast<int>(form) << " " << i);
      const int64_t n = r.pick<int64_t>({2, 5, 16, 17, 48, 384}), rows = r.pick<int64_t>({1, 3, 70, 400});
      Net net(23);
      const Shape shape{2, rows, n};
      const ValueId a = net.input(DType::F32, shape), b = net.input(DType::F32, shape);
      const bool used = r.chance(2), declared = r.chance(2);
      const Attributes axis = form == Form::RmsPieces || declared ? Attributes{} : Attributes{{"axis", int64_t{2}, {}}};
      const ValueId sum = net.add("Add", {net.add("Tanh", {a}), r.chance(4) ? a : net.add("Tanh", {b})});
      const ValueId y = normalize(net, r, sum, n, form, axis);
      net.output(net.add("Softmax", {y}));
      if (used) net.output(net.add("Softmax", {sum}));
      const Feeds feeds{{a, random_floats(r, shape)}, {b, random_floats(r, shape)}};
      const Graph& graph = net.graph();
      const std::string steps = steps_of(graph);
      EXPECT_EQ(steps.find("Add"), std::string::npos) << steps;
      EXPECT_NE(Session(graph).plan().at(Session(graph).plan().size() - (used ? 3 : 2)).kernel.find("with the sum before it"), std::string::npos) << steps;
      expect_plain(graph, feeds, form);
    }
}

TEST(ResidualNorm, ChainsOfSumsAreEachMadeOnce) {
  Random r(22);
  for (const Form form : {Form::Layer, Form::Rms, Form::RmsPieces}) {
    Net net(23);
    const Shape shape{40, 64};
    const ValueId x = net.input(DType::F32, shape);
    ValueId sum = x;
    Feeds feeds{{x, random_floats(r, shape)}};
    for (int i = 0; i < 4; ++i) {
      const ValueId more = net.input(DType::F32, shape);
      feeds[more] = random_floats(r, shape);
      sum = net.add("Add", {sum, i == 0 ? more : net.add("Add", {more, normalize(net, r, sum, 64, form)})});
    }
    net.output(net.add("Softmax", {sum}));
    check(net, feeds, 3 + 2 + 1 + 1, form);  // three sums with their normalizations, the Adds between them, the last two, Softmax
  }
}

TEST(ResidualNorm, BroadcastsWhatIsAdded) {
  Random r(23);
  for (const Shape& other : std::vector<Shape>{{1, 5, 32}, {32}, {2, 1, 1}, {1}, {3, 2, 5, 32}})
    for (const bool used : {false, true}) {
      Net net(23);
      const ValueId a = net.input(DType::F32, {2, 5, 32}), b = net.input(DType::F32, other);
      const ValueId sum = r.chance(2) ? net.add("Add", {a, b}) : net.add("Add", {b, a});
      net.output(net.add("Softmax", {normalize(net, r, sum, 32, Form::Layer)}));
      if (used) net.output(net.add("Softmax", {sum}));
      check(net, {{a, random_floats(r, {2, 5, 32})}, {b, random_floats(r, other)}}, used ? 3 : 2);
    }
}

TEST(ResidualNorm, LeavesASumAloneThatIsReadBeforeOrSeenFromOutside) {
  Random r(24);
  const Shape shape{3, 16};
  for (const int who : {0, 1, 2}) {
    SCOPED_TRACE(who);
    Net net(23);
    const ValueId a = net.input(DType::F32, shape), b = net.input(DType::F32, shape);
    const ValueId sum = net.add("Add", {a, b});
    if (who == 0) net.output(net.add("Softmax", {sum}));  // stands before the normalization
    const ValueId y = normalize(net, r, sum, 16, Form::Layer);
    if (who == 1) net.output(sum);
    if (who == 2) net.output(y), net.output(net.add("Softmax", {sum}));
    else net.output(net.add("Softmax", {y}));
    check(net, {{a, random_floats(r, shape)}, {b, random_floats(r, shape)}}, who == 0 ? 4 : 3);
  }
}

TEST(ResidualNorm, WritesTheCodesOfTheQuantizeLinearBehindIt) {
  Random r(28);
  for (const Form form : {Form::Layer, Form::Rms, Form::RmsPieces})
    for (int i = 0; i < 12 && !testing::Test::HasFatalFailure(); ++i) {
      SCOPED_TRACE(testing::Message() << static_cast<int>(form) << " " << i);
      const int64_t n = r.pick<int64_t>({2, 5, 16, 48, 1500}), rows = r.pick<int64_t>({1, 3, 70});
      const Shape shape{2, rows, n};
      const bool adds = r.chance(2), keeps_rows = r.chance(2), keeps_sum = adds && r.chance(2);
      Net net(23);
      const ValueId a = net.input(DType::F32, shape), b = net.input(DType::F32, shape);
      const ValueId x = adds ? net.add("Add", {a, b}) : a, y = normalize(net, r, x, n, form);
      std::vector<ValueId> in{y, net.number(0.05f)};
      const DType type = r.pick({DType::U8, DType::I8, DType::F8E4M3FN, DType::Undefined});
      if (type != DType::Undefined) in.push_back(net.constant(zero_tensor(type, is_float(type) ? 0 : 7)));
      net.output(net.add("Transpose", {net.add("QuantizeLinear", in)}));
      if (keeps_rows) net.output(net.add("Softmax", {y}));
      if (keeps_sum) net.output(net.add("Softmax", {x}));
      const Feeds feeds{{a, random_floats(r, shape)}, {b, random_floats(r, shape)}};
      const auto plan = Session(net.graph()).plan();
      EXPECT_EQ(plan.size(), 2u + keeps_rows + keeps_sum);
      EXPECT_NE(plan.at(0).kernel.find(", to codes"), std::string::npos) << plan.at(0).kernel;
      if (form == Form::RmsPieces && is_float(type)) continue;  // pieces divide: a last digit may be a step of float8, however large
      expect_plain(net.graph(), feeds, form);
    }
}

/// Per-channel scales and types of other widths stay QuantizeLinear's.
TEST(ResidualNorm, LeavesOtherQuantizersAlone) {
  Random r(29);
  for (const int what : {0, 1}) {
    Net net(23);
    const ValueId a = net.input(DType::F32, {3, 4});
    std::vector<ValueId> in{net.add("RMSNormalization", {a, net.constant(random_floats(r, {4}))})};
    in.push_back(what == 0 ? net.constant(Tensor::of<float>({4}, {1, 2, 3, 4})) : net.number(0.1f));
    if (what == 1) in.push_back(net.constant(zero_tensor(DType::I16, 0)));
    net.output(net.add("QuantizeLinear", in));
    check(net, {{a, random_floats(r, {3, 4})}}, 2);
  }
}

TEST(ResidualNorm, ATapSeesTheSum) {
  Random r(25);
  Net net(23);
  const Shape shape{3, 16};
  const ValueId a = net.input(DType::F32, shape), b = net.input(DType::F32, shape), sum = net.add("Add", {a, b});
  net.output(normalize(net, r, sum, 16, Form::Rms));
  const Graph& graph = net.graph();
  int seen = 0;
  SessionOptions options;
  options.taps = {sum};
  const Feeds feeds{{a, random_floats(r, shape)}, {b, random_floats(r, shape)}};
  Session(graph, options).run(feeds, [&](ValueId v, const Tensor& t, Layout) { seen += v == sum && t.shape() == shape; });
  EXPECT_EQ(seen, 1);
}

TEST(ResidualNorm, OtherTypesAndMoreOutputsAreLeftToTheOperators) {
  Random r(26);
  Net net(17);
  const ValueId a = net.input(DType::F16, {3, 16}), b = net.input(DType::F16, {3, 16});
  const ValueId gain = net.constant(cast(random_floats(r, {16}), DType::F16));
  net.output(net.add("LayerNormalization", {net.add("Add", {a, b}), gain}));
  check(net, {{a, cast(random_floats(r, {3, 16}), DType::F16)}, {b, cast(random_floats(r, {3, 16}), DType::F16)}}, 2);
  Net more(17);
  const ValueId c = more.input(DType::F32, {3, 16}), d = more.input(DType::F32, {3, 16});
  const NodeId node = more.add_node("LayerNormalization", {more.add("Add", {c, d}), more.constant(random_floats(r, {16}))}, 2);
  for (ValueId v : more.graph().node(node).outputs) more.output(v);
  check(more, {{c, random_floats(r, {3, 16})}, {d, random_floats(r, {3, 16})}}, 2);
}

TEST(ResidualNorm, ShapesThatDontFitAreErrors) {
  Random r(27);
  Net net(17);
  const ValueId a = net.open_input(DType::F32), b = net.open_input(DType::F32);
  net.output(normalize(net, r, net.add("Add", {a, b}), 16, Form::Layer));
  const Graph& graph = net.graph();
  EXPECT_THROW(Session(graph).run({{a, random_floats(r, {3, 16})}, {b, random_floats(r, {2, 16})}}), Error);
  EXPECT_THROW(Session(graph).run({{a, random_floats(r, {3, 8})}, {b, random_floats(r, {3, 8})}}), Error);
}

}  // namespace
}  // namespace infopt::test
