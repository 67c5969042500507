// RNN, GRU and LSTM on the device: the CPU's values, within rounding.
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

Tensor numbers(Random& r, const Shape& shape, DType type = DType::F32) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(-1, 1);
  return cast(t, type);
}

/// A node with every attribute and input drawn at random.
struct Case {
  Random& r;
  std::string op;
  DType type;
  int64_t gates, directions, steps, batch, depth, hidden;
  bool batch_first;
  Net net;
  Feeds feeds;

  Case(Random& random, std::string name, DType t)
      : r(random), op(std::move(name)), type(t), gates(op == "RNN" ? 1 : op == "GRU" ? 3 : 4), directions(r.in(1, 2)), steps(r.in(1, 5)), batch(r.pick<int64_t>({1, 2, 11})), depth(r.in(1, 9)),
        hidden(r.pick<int64_t>({1, 3, 8, 37})), batch_first(r.chance(3)) {}

  ValueId maybe(bool there, const Shape& shape) { return there ? net.constant(numbers(r, shape, type)) : kNone; }
  Attributes attributes() {
    Attributes a{{"hidden_size", hidden}, {"direction", std::string(directions == 2 ? "bidirectional" : r.chance(2) ? "reverse" : "forward")}};
    if (r.chance(3)) a.push_back({"clip", 0.5F});
    if (op == "LSTM" && r.chance(3)) a.push_back({"input_forget", int64_t{1}});
    if (op == "GRU" && r.chance(2)) a.push_back({"linear_before_reset", int64_t{1}});
    if (batch_first) a.push_back({"layout", int64_t{1}});
    if (r.chance(3)) {
      std::vector<std::string> names;
      for (int64_t i = 0; i < directions * (op == "RNN" ? 1 : op == "GRU" ? 2 : 3); ++i)
        names.push_back(r.pick<std::string>({"Relu", "tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign", "Softplus"}));
      a.push_back({"activations", names});
      a.push_back({"activation_alpha", std::vector<float>{0.25F}});
    }
    return a;
  }
  void check(double relative) {
    const Shape x = batch_first ? Shape{batch, steps, depth} : Shape{steps, batch, depth}, state = batch_first ? Shape{batch, directions, hidden} : Shape{directions, batch, hidden};
    std::vector<ValueId> in{net.input(type, x), net.constant(numbers(r, {directions, gates * hidden, depth}, type)), net.constant(numbers(r, {directions, gates * hidden, hidden}, type))};
    feeds[in[0]] = numbers(r, x, type);
    in.push_back(maybe(r.chance(2), {directions, 2 * gates * hidden}));
    in.push_back(kNone);
    if (r.chance(2)) {
      Tensor lengths(DType::I32, {batch});
      for (int64_t b = 0; b < batch; ++b) lengths.mutable_data<int32_t>()[b] = static_cast<int32_t>(r.in(0, steps));
      in[4] = net.input(DType::I32, {batch});
      feeds[in[4]] = lengths;
    }
    in.push_back(maybe(r.chance(2), state));
    if (op == "LSTM") in.push_back(maybe(r.chance(2), state)), in.push_back(maybe(r.chance(3), {directions, 3 * hidden}));
    const NodeId node = net.add_node(op, in, op == "LSTM" ? 3 : 2, attributes());
    for (const ValueId v : net.graph().node(node).outputs) net.output(v);
    SCOPED_TRACE(testing::Message() << op << " of " << name_of(type) << to_string(x) << ", state " << to_string(state));
    expect_as_cpu(net.graph(), feeds, relative);
  }
};

TEST(CudaRecurrent, RandomNodesAsTheCpu) {
  Random r(81);
  for (int i = 0; i < 90 && !testing::Test::HasFatalFailure(); ++i) Case(r, i % 3 == 0 ? "RNN" : i % 3 == 1 ? "GRU" : "LSTM", DType::F32).check(1e-5);
}

TEST(CudaRecurrent, SixteenBitsAreComputedInFloat32) {
  Random r(82);
  for (int i = 0; i < 12 && !testing::Test::HasFatalFailure(); ++i) {
    Case(r, i % 2 ? "GRU" : "LSTM", DType::F16).check(2e-3);
    Case(r, i % 2 ? "LSTM" : "GRU", DType::BF16).check(2e-2);
  }
}

TEST(CudaRecurrent, ALengthBeyondTheStepsIsAnError) {
  Random r(83);
  Net net;
  const ValueId x = net.input(DType::F32, {2, 1, 3}), lengths = net.input(DType::I32, {1});
  net.output(net.add("RNN", {x, net.constant(numbers(r, {1, 4, 3})), net.constant(numbers(r, {1, 4, 4})), kNone, lengths}, {{"hidden_size", int64_t{4}}}));
  EXPECT_THROW(run_cuda(net.graph(), {{x, numbers(r, {2, 1, 3})}, {lengths, Tensor::of<int32_t>({1}, {3})}}), Error);
}

}  // namespace
}  // namespace infopt::test
