// If, Loop and Scan on the device, bodies included: the CPU's values.
#include <algorithm>

#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

const Type kLong = Type::tensor(DType::I64, {}), kBool = Type::tensor(DType::Bool, {});

Tensor numbers(Random& r, const Shape& shape) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(-1, 1);
  return t;
}
Tensor condition(bool v) { return cast(Tensor::scalar<int64_t>(v), DType::Bool); }

/// A body in the making.
struct Body {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  GraphEdit edit{*graph};
  ValueId input(Type type) { return edit.add_input("b" + std::to_string(graph->inputs().size()), std::move(type)); }
  ValueId constant(Tensor t) { return edit.add_constant(std::move(t)); }
  ValueId add(const std::string& op, std::vector<ValueId> inputs, Attributes attributes = {}) { return edit.add({.op = op, .attributes = std::move(attributes)}, std::move(inputs)); }
  void output(ValueId v) { edit.add_output(v); }
  Attribute as(const char* name) {
    edit.finish();
    return {name, graph};
  }
};

/// Of a node with bodies, by an output: what these read from outside.
void set_captures(GraphEdit& edit, const Graph& graph, ValueId output, std::vector<ValueId> values) {
  std::sort(values.begin(), values.end());
  edit.set_captures(graph.value(output).producer, std::move(values));
}

TEST(CudaControlFlow, IfTakesTheBranchAndReadsWhatLiesOutside) {
  Random r(111);
  for (const bool which : {true, false}) {
    Net net;
    const ValueId go = net.input(DType::Bool, {}), x = net.input(DType::F32, {3, 4});
    const ValueId weights = net.constant(numbers(r, {4, 5})), squared = net.add("Mul", {x, x});
    Body yes, no;
    yes.output(yes.add("MatMul", {yes.edit.add_outer(squared), yes.edit.add_outer(weights)}));
    no.output(no.add("Relu", {no.edit.add_outer(x)}));
    const ValueId y = net.add("If", {go}, {yes.as("then_branch"), no.as("else_branch")});
    set_captures(net.edit(), net.graph(), y, {x, weights, squared});
    net.output(y);
    expect_as_cpu(net.graph(), {{go, condition(which)}, {x, numbers(r, {3, 4})}});
  }
}

/// state = tanh(state·W), given out in each iteration, until it has run `limit` times by its own count.
struct Counted {
  Net net;
  ValueId most, state;
  Counted(Random& r, int64_t limit, bool bounded) {
    most = bounded ? net.input(DType::I64, {}) : kNone;
    state = net.input(DType::F32, {2, 6});
    const ValueId weights = net.constant(numbers(r, {6, 6})), start = net.constant(Tensor::scalar<int64_t>(0)), on = net.constant(condition(true));
    Body b;
    b.input(kLong), b.input(kBool);
    const ValueId s = b.input(Type::tensor(DType::F32, {2, 6})), count = b.input(kLong);
    const ValueId next = b.add("Tanh", {b.add("MatMul", {s, b.edit.add_outer(weights)})}), counted = b.add("Add", {count, b.constant(Tensor::scalar<int64_t>(1))});
    b.output(b.add("Less", {counted, b.constant(Tensor::scalar(limit))}));
    b.output(next), b.output(counted), b.output(b.add("Identity", {next})), b.output(b.add("Cast", {counted}, {{"to", int64_t{1}}}));
    const NodeId loop = net.add_node("Loop", {most, on, state, start}, 4, {b.as("body")});
    net.edit().set_captures(loop, {weights});
    for (const ValueId v : net.graph().node(loop).outputs) net.output(v);
  }
};

TEST(CudaControlFlow, LoopEndsByItsConditionOrCount) {
  Random r(112);
  Counted by_condition(r, 4, false), by_count(r, 9, true);
  expect_as_cpu(by_condition.net.graph(), {{by_condition.state, numbers(r, {2, 6})}});
  for (const int64_t most : {3, 0}) expect_as_cpu(by_count.net.graph(), {{by_count.most, Tensor::scalar(most)}, {by_count.state, numbers(r, {2, 6})}});
}

TEST(CudaControlFlow, ScanGoesAlongAnyAxisInEitherDirection) {
  Random r(113);
  for (int64_t i = 0; i < 8; ++i) {
    Net net;
    const int64_t axis = i % 3, rank = 3;
    Shape shape{4, 2, 5}, piece = shape;
    piece.erase(piece.begin() + axis);
    const ValueId state = net.input(DType::F32, piece), x = net.input(DType::F32, shape);
    Body b;
    const ValueId s = b.input(Type::tensor(DType::F32, piece)), part = b.input(Type::tensor(DType::F32, piece)), sum = b.add("Add", {s, part});
    b.output(sum), b.output(b.add("Mul", {sum, part}));
    const NodeId scan = net.add_node("Scan", {state, x}, 2,
                                     {b.as("body"), {"num_scan_inputs", int64_t{1}}, {"scan_input_axes", std::vector<int64_t>{axis - (i % 2 ? rank : 0)}}, {"scan_input_directions", std::vector<int64_t>{i % 2}},
                                      {"scan_output_axes", std::vector<int64_t>{(axis + 1) % 3}}, {"scan_output_directions", std::vector<int64_t>{i / 4}}});
    for (const ValueId v : net.graph().node(scan).outputs) net.output(v);
    expect_as_cpu(net.graph(), {{state, numbers(r, piece)}, {x, numbers(r, shape)}});
  }
}

TEST(CudaControlFlow, BodiesInBodies) {
  Random r(114);
  Net net;
  const ValueId x = net.input(DType::F32, {7}), bias = net.constant(numbers(r, {7}));
  Body outer, yes, no;
  const ValueId i = outer.input(kLong), on = outer.input(kBool), s = outer.input(Type::tensor(DType::F32, {7})), b = outer.edit.add_outer(bias);
  yes.output(yes.add("Add", {yes.edit.add_outer(s), yes.edit.add_outer(b)}));
  no.output(no.add("Neg", {no.edit.add_outer(s)}));
  const ValueId even = outer.add("Equal", {outer.add("Mod", {i, outer.constant(Tensor::scalar<int64_t>(2))}), outer.constant(Tensor::scalar<int64_t>(0))});
  outer.output(on);
  const ValueId chosen = outer.add("If", {even}, {yes.as("then_branch"), no.as("else_branch")});
  set_captures(outer.edit, *outer.graph, chosen, {s, b});
  outer.output(chosen);
  const ValueId y = net.add("Loop", {net.constant(Tensor::scalar<int64_t>(5)), kNone, x}, {outer.as("body")});
  set_captures(net.edit(), net.graph(), y, {bias});
  net.output(y);
  expect_as_cpu(net.graph(), {{x, numbers(r, {7})}});
}

TEST(CudaControlFlow, ANodeWithoutAKernelInABodyRunsOnTheCpu) {
  Random r(115);
  Net net;
  const ValueId x = net.input(DType::F32, {9});
  Body b;
  b.input(kLong);
  const ValueId on = b.input(kBool), s = b.input(Type::tensor(DType::F32, {9}));
  b.output(on);
  b.output(b.add("Mul", {s, b.add("Cast", {b.add("ReduceSum", {b.add("NonZero", {s})}, {{"keepdims", int64_t{0}}})}, {{"to", int64_t{1}}})}));
  net.output(net.add("Loop", {net.constant(Tensor::scalar<int64_t>(2)), kNone, x}, {b.as("body")}));
  const Feeds feeds{{x, numbers(r, {9})}};
  EXPECT_THROW(run_cuda(net.graph(), feeds), Error);
  SessionOptions options;
  options.device = cuda_device();
  expect_same_bits(Session(net.graph(), options).run(feeds), Session(net.graph(), {}).run(feeds));
}

}  // namespace
}  // namespace infopt::test
