// Chains of elementwise nodes become one kernel on the device, and give what the CPU's nodes give.
#include "tests/cuda/elements.h"

namespace infopt::test {
namespace {

std::string cuda_steps(const Graph& graph) {
  SessionOptions options;
  options.device = cuda_device();
  return steps_of(graph, options);
}

/// A tree of random functions over values of shapes that broadcast to `full`.
ValueId random_chain(Net& net, Random& r, std::vector<ValueId> values, int64_t nodes, DType dtype) {
  ValueId last = kNone;
  const auto number = [&] { return net.constant(cast(Tensor::of<float>({}, {r.real(0.5f, 2)}), dtype)); };
  for (int64_t i = 0; i < nodes; ++i) {
    const auto pick = [&] { return last != kNone && r.chance(2) ? last : values[static_cast<size_t>(r.in(0, static_cast<int64_t>(values.size()) - 1))]; };
    const std::string op = r.pick<const char*>({"Add", "Sub", "Mul", "Max", "Min", "Div", "Pow", "Sigmoid", "Tanh", "Relu", "Gelu", "Neg", "Abs", "Clip", "LeakyRelu", "HardSwish", "Erf"});
    if (op == "Div") last = net.add(op, {pick(), number()});
    else if (op == "Pow") last = net.add(op, {net.add("Sigmoid", {pick()}), r.chance(2) ? net.constant(cast(Tensor::of<float>({}, {r.pick({2.0f, 3.0f, 0.5f})}), dtype)) : number()});
    else if (op == "Clip") last = net.add(op, {pick(), net.constant(cast(Tensor::of<float>({}, {-1.5f}), dtype)), r.chance(2) ? net.constant(cast(Tensor::of<float>({}, {1.25f}), dtype)) : kNone});
    else if (op.size() == 3 && op != "Neg" && op != "Abs" && op != "Erf") last = r.chance(3) ? net.add(op, {number(), pick()}) : net.add(op, {pick(), pick()});
    else last = net.add(op, {pick()});
    values.push_back(last);
  }
  // Every value is read, so that the last node ends one chain.
  for (ValueId v : values)
    if (net.edit().graph().value(v).uses.empty() && v != last) last = net.add("Add", {last, v});
  return last;
}

TEST(CudaChain, RandomTreesWithBroadcasting) {
  Random r(31);
  for (int i = 0; i < 120; ++i) {
    SCOPED_TRACE(i);
    const DType dtype = r.pick({DType::F32, DType::F32, DType::F32, DType::F16, DType::BF16});
    Net net;
    Feeds feeds;
    std::vector<ValueId> values;
    Shape full = random_shape(r, 1, 4, 5);
    if (r.chance(2)) full.back() = r.pick<int64_t>({4, 8, 16, 40});
    for (int64_t k = r.in(1, 5); k > 0; --k) {
      Shape s = full;
      for (int64_t& d : s)
        if (r.chance(4)) d = 1;
      if (r.chance(4)) s.erase(s.begin());
      const ValueId v = r.chance(5) ? net.constant(random_tensor(r, dtype, s, -2, 2)) : net.input(dtype, s);
      if (!net.edit().graph().value(v).constant.defined()) feeds[v] = random_tensor(r, dtype, s, -2, 2);
      values.push_back(v);
    }
    net.output(random_chain(net, r, values, r.in(2, 14), dtype));
    expect_close(net.graph(), feeds, dtype == DType::F32 ? 5 : 4);
  }
}

TEST(CudaChain, NodesThatFeedOneAnotherAreOneStep) {
  Net net;
  const ValueId x = net.input(DType::F32, {3, 8}), bias = net.constant(Tensor::of<float>({8}, {1, 2, 3, 4, 5, 6, 7, 8}));
  const ValueId sum = net.add("Add", {x, bias});
  const ValueId erf = net.add("Erf", {net.add("Div", {sum, net.number(1.41421356f)})});
  net.output(net.add("Mul", {net.add("Mul", {sum, net.add("Add", {erf, net.number(1)})}), net.number(0.5f)}));
  EXPECT_EQ(cuda_steps(net.graph()), "Mul");
  Random r(32);
  expect_close(net.graph(), {{x, random_tensor(r, DType::F32, {3, 8})}}, 2);
}

TEST(CudaChain, HalvesAreRoundedOnceAtTheEnd) {
  Net net;
  const ValueId x = net.input(DType::F16, {64});
  const ValueId one = net.constant(cast(Tensor::of<float>({}, {2048}), DType::F16));
  net.output(net.add("Sub", {net.add("Add", {x, one}), one}));
  EXPECT_EQ(cuda_steps(net.graph()), "Sub");
  Random r(33);
  const Tensor values = random_tensor(r, DType::F16, {64}, 0, 1);
  std::vector<float> want = to_vector<float>(values);
  for (float& v : want) v = (v + 2048.0f) - 2048.0f;  // in float16 nothing but 0 would be left
  expect_same_bits(run_cuda(net.graph(), {{x, values}})[0], cast(Tensor::vector(want), DType::F16));
}

TEST(CudaChain, MoreInputsThanOneKernelTakes) {
  Random r(34);
  for (int64_t count : {15, 16, 17, 40}) {
    Net net;
    Feeds feeds;
    ValueId total = kNone;
    for (int64_t i = 0; i < count; ++i) {
      const ValueId x = net.input(DType::F32, {2, 9});
      feeds[x] = random_tensor(r, DType::F32, {2, 9});
      total = total == kNone ? x : net.add(i % 2 ? "Add" : "Mul", {net.add("Tanh", {x}), total});
    }
    net.output(total);
    expect_close(net.graph(), feeds, 4);
  }
}

TEST(CudaChain, ManyValuesHeldAtOnce) {
  Random r(35);
  for (int64_t held : {2, 3, 5, 6, 7, 9}) {
    Net net;
    const ValueId x = net.input(DType::F32, {33});
    std::vector<ValueId> kept;
    for (int64_t i = 0; i < held; ++i) kept.push_back(net.add("Sigmoid", {i ? kept.back() : x}));
    ValueId total = net.add("Neg", {kept.back()});
    for (ValueId v : kept) total = net.add("Mul", {net.add("Add", {total, v}), x});
    net.output(total);
    expect_close(net.graph(), {{x, random_tensor(r, DType::F32, {33})}}, 4);
  }
}

TEST(CudaChain, IntegersRunNodeByNode) {
  Random r(36);
  Net net;
  const ValueId x = net.input(DType::I32, {20});
  net.output(net.add("Abs", {net.add("Neg", {net.add("Relu", {x})})}));
  EXPECT_EQ(cuda_steps(net.graph()), "Relu Neg Abs");
  expect_close(net.graph(), {{x, random_tensor(r, DType::I32, {20}, -99, 99)}});
}

}  // namespace
}  // namespace infopt::test
