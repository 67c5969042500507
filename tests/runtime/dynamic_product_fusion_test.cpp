// DynamicQuantizeLinear → MatMulInteger → Cast → Mul → Add as one product, against the same graph node by node.
#include "tests/runtime/fusion_harness.h"

namespace infopt::test {
namespace {

Tensor reals(Random& r, const Shape& shape, float size) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(-size, size);
  return t;
}

struct DynamicParts {
  ValueId x = kNone, y = kNone;
  Feeds feeds;
};

/// The chain as ONNX Runtime's quantizer writes it, its operands in any order.
DynamicParts build(Net& net, Random& r, const Shape& shape, int64_t n) {
  DynamicParts p;
  auto either = [&](ValueId a, ValueId b) { return r.chance(2) ? std::vector<ValueId>{a, b} : std::vector<ValueId>{b, a}; };
  const DType type = r.pick({DType::I8, DType::U8});
  p.x = net.input(DType::F32, shape);
  p.feeds = {{p.x, reals(r, shape, r.real(0.1f, 8))}};
  const auto& made = net.graph().node(net.add_node("DynamicQuantizeLinear", {p.x}, 3)).outputs;
  std::vector<ValueId> in{made[0], net.constant(random_codes(r, type, {shape.back(), n})), made[2]};
  const bool each = r.chance(2);
  if (!r.chance(3)) in.push_back(net.constant(each && r.chance(2) ? random_codes(r, type, {n}) : random_codes(r, type, {})));
  const ValueId cast = net.add("Cast", {net.add("MatMulInteger", in)}, {{"to", int64_t{1}, {}}});
  const ValueId scales = each ? net.constant(reals(r, r.chance(2) ? Shape{n} : Shape{1, n}, 0.02f))
                              : net.number(r.real(0.001f, 0.02f), r.pick({Shape{}, Shape{1}, Shape{1, 1}}));
  p.y = net.add("Mul", either(cast, net.add("Mul", either(made[1], scales))));
  if (r.chance(2)) p.y = net.add("Add", either(p.y, net.constant(reals(r, r.pick({Shape{n}, Shape{1, n}, Shape{}}), 2))));
  if (r.chance(3)) p.y = net.add("Relu", {p.y});
  net.output(p.y);
  return p;
}

TEST(DynamicProductFusion, GivesTheNumbersOfItsParts) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    Shape shape;
    for (int64_t i = r.in(0, 3); i > 0; --i) shape.push_back(r.in(1, 5));
    shape.push_back(r.pick<int64_t>({r.in(1, 9), r.in(10, 130)}));
    Net net;
    const DynamicParts p = build(net, r, shape, r.in(1, 100));
    const auto got = expect_fused(net, p.feeds, "DynamicQuantizeLinear MatMulInteger", agreement);
    if (HasFatalFailure()) return;
    EXPECT_EQ(to_vector<double>(got[0]), to_vector<double>(run_plain(net.graph(), p.feeds)[0]));
  }
}

/// The integers that the epilogue reads: Σ (a − za)·(b − zb), cast and scaled as ONNX has it, in double.
TEST(DynamicProductFusion, AgreesWithTheFormula) {
  Net net;
  const ValueId x = net.input(DType::F32, {1, 2});
  const auto& made = net.graph().node(net.add_node("DynamicQuantizeLinear", {x}, 3)).outputs;
  const ValueId product = net.add("MatMulInteger", {made[0], net.constant(Tensor::of<int8_t>({2, 2}, {1, 2, 3, -4})), made[2]});
  net.output(net.add("Mul", {net.add("Cast", {product}, {{"to", int64_t{1}, {}}}), net.add("Mul", {made[1], net.number(0.5f)})}));
  EXPECT_EQ(steps_of(net.graph()), "DynamicQuantizeLinear MatMulInteger");
  // Range [0, 2.55]: scale 0.01, zero point 0; 2.55 becomes 255 and 1 becomes 100.
  const auto y = to_vector<double>(Session(net.graph()).run(Feeds{{x, Tensor::of<float>({1, 2}, {2.55f, 1})}})[0]);
  EXPECT_NEAR(y[0], (255 + 300) * 0.005, 1e-5);
  EXPECT_NEAR(y[1], (510 - 400) * 0.005, 1e-5);
}

/// Zero points of rows, and whatever else the one kernel doesn't know.
TEST(DynamicProductFusion, RefusesWhatIsntOneScale) {
  Random r(3);
  for (const int kind : {0, 1, 2, 3}) {
    SCOPED_TRACE(kind);
    Net net;
    const ValueId x = net.input(DType::F32, {3, 4});
    const auto& made = net.graph().node(net.add_node("DynamicQuantizeLinear", {x}, 3)).outputs;
    const ValueId zero = kind == 0 ? net.input(DType::U8, {3}) : made[2];
    const ValueId product = net.add("MatMulInteger", {made[0], net.constant(random_codes(r, DType::I8, {4, 3})), zero});
    const ValueId cast = net.add("Cast", {product}, {{"to", int64_t{kind == 1 ? 11 : 1}, {}}});
    if (kind == 1) {
      net.output(net.add("Mul", {cast, net.add("Cast", {made[1]}, {{"to", int64_t{11}, {}}})}));
    } else {
      const ValueId scales = kind == 2 ? net.constant(reals(r, {3, 1}, 0.1f)) : net.number(0.1f);
      const ValueId y = net.add("Mul", {cast, net.add("Mul", {made[1], scales})});
      net.output(kind == 3 ? net.add("Add", {y, net.constant(reals(r, {3, 1}, 1))}) : y);
    }
    Feeds feeds{{x, reals(r, {3, 4}, 2)}};
    if (kind == 0) feeds[zero] = Tensor::of<uint8_t>({3}, {1, 2, 3});
    if (kind < 3) expect_kept(net, feeds, "Cast");
    else (void)expect_fused(net, feeds, "");
  }
}

TEST(DynamicProductFusion, TakesEmptyBatches) {
  for (unsigned seed = 0; seed < 10; ++seed) {
    Random r(seed);
    Net net;
    const DynamicParts p = build(net, r, {0, 3, 5}, 4);
    const auto got = Session(net.graph()).run(p.feeds);
    EXPECT_EQ(got[0].shape(), (Shape{0, 3, 4}));
  }
}

/// ConvInteger as ONNX Runtime's quantizer writes it, with its bias as Add of a constant.
TEST(DynamicProductFusion, ConvolutionsGiveTheNumbersOfTheirParts) {
  Agreement agreement;
  for (unsigned seed = 0; seed < 120; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    Net net;
    const int64_t groups = r.pick<int64_t>({1, 1, 2, 6}), per_group = groups == 6 ? 1 : r.in(1, 5),
                  n = groups * (groups == 6 ? 1 : r.in(1, 9));
    const bool flat = r.chance(4);
    Shape shape{r.in(1, 2), groups * per_group, r.in(3, 9)}, kernel{n, per_group, r.in(1, 3)}, ones{n, 1};
    if (!flat) shape.push_back(r.in(3, 9)), kernel.push_back(r.in(1, 3)), ones.push_back(1);
    const size_t spatial = shape.size() - 2;
    Attributes attributes{{"group", groups, {}}, {"strides", std::vector<int64_t>(spatial, r.in(1, 2)), {}}};
    if (r.chance(2)) attributes.push_back({"pads", std::vector<int64_t>(2 * spatial, r.in(0, 1)), {}});
    const DType type = r.pick({DType::I8, DType::U8});
    const ValueId x = net.input(DType::F32, shape);
    const auto& made = net.graph().node(net.add_node("DynamicQuantizeLinear", {x}, 3)).outputs;
    std::vector<ValueId> in{made[0], net.constant(random_codes(r, type, kernel)), made[2]};
    if (!r.chance(3)) in.push_back(net.constant(random_codes(r, type, r.chance(3) ? Shape{n} : Shape{})));
    const ValueId cast = net.add("Cast", {net.add("ConvInteger", in, attributes)}, {{"to", int64_t{1}, {}}});
    const ValueId scale = net.constant(reals(r, r.pick({Shape{}, ones}), 0.02f));
    ValueId y = net.add("Mul", {cast, net.add("Mul", {made[1], scale})});
    if (r.chance(2)) y = net.add("Add", {y, net.constant(reals(r, r.pick({ones, Shape{1}}), 2))});
    if (r.chance(3)) y = net.add("Relu", {y});
    net.output(y);
    const Feeds feeds{{x, reals(r, shape, 3)}};
    const auto got = expect_fused(net, feeds, "DynamicQuantizeLinear ConvInteger", agreement);
    if (HasFatalFailure()) return;
    EXPECT_EQ(to_vector<double>(got[0]), to_vector<double>(run_plain(net.graph(), feeds)[0]));
  }
}

/// By itself it gives the sums; weights that aren't constant are the general kernel's.
TEST(DynamicProductFusion, ConvIntegerAloneIsExact) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    Random r(seed);
    Net net;
    const DType a = r.pick({DType::I8, DType::U8}), b = r.pick({DType::I8, DType::U8});
    const Shape shape{2, 4, 6, 5}, kernel{6, 2, 2, 3};
    const ValueId x = net.input(a, shape);
    Feeds feeds{{x, random_codes(r, a, shape)}};
    std::vector<ValueId> in{x, net.constant(random_codes(r, b, kernel))};
    if (r.chance(4)) feeds[in[1] = net.input(b, kernel)] = random_codes(r, b, kernel);
    if (r.chance(2)) in.push_back(net.constant(random_codes(r, a, {})));
    if (in.size() == 3 && r.chance(2)) in.push_back(net.constant(random_codes(r, b, r.chance(2) ? Shape{6} : Shape{})));
    net.output(net.add("ConvInteger", in, {{"group", int64_t{2}, {}}, {"pads", std::vector<int64_t>{1, 0, 0, 1}, {}}}));
    expect_same_bits(Session(net.graph()).run(feeds), run_plain(net.graph(), feeds));
  }
}

}  // namespace
}  // namespace infopt::test
