// Sequences and optionals through the Session. What each operator gives is ONNX's specification's; the backend suite
// (tests/python/test_conformance.py) has the common cases, these are the borders.
#include "tests/ops/data_harness.h"

namespace infopt::test {
namespace {

struct Step {
  std::string op;
  std::vector<std::string> inputs, outputs;
  Attributes attributes = {};
};

/// A model whose nodes are these; names that no step gives are the inputs, in alphabetical order. The last step's outputs are fetched.
std::vector<Datum> run_steps(const std::vector<Step>& steps, const std::map<std::string, Datum>& inputs) {
  Graph graph;
  graph.opsets[""] = 18;
  {
    GraphEdit edit(graph);
    std::map<std::string, ValueId> values;
    for (const auto& [name, datum] : inputs) {
      Type type;
      if (datum.is_tensor()) type = Type::tensor(datum.tensor().dtype(), datum.tensor().shape());
      else type.opaque = "x";
      values[name] = edit.add_input(name, type);
    }
    for (const Step& step : steps) {
      std::vector<ValueId> in, out;
      for (const std::string& name : step.inputs) in.push_back(name.empty() ? kNone : values.at(name));
      for (const std::string& name : step.outputs) out.push_back(values[name] = edit.add_value(name));
      edit.add_node({step.op, "", step.op, step.attributes}, in, out);
      if (&step == &steps.back())
        for (ValueId id : out) edit.add_output(id);
    }
  }
  return Session(graph).run_data(inputs);
}

Datum numbers(std::vector<float> values) {
  Sequence s{DType::F32, {}};
  for (float v : values) s.elements.push_back(Tensor::scalar(v));
  return Datum::sequence(std::move(s));
}

std::vector<double> held(const Datum& d) {
  std::vector<double> out;
  for (const Tensor& t : d.sequence().elements) out.push_back(to_scalar<double>(t));
  return out;
}

Datum at_position(int64_t i) { return Tensor::scalar(i); }

TEST(Sequence, InsertsAtPositionsFromEitherEnd) {
  const auto insert = [](int64_t i) {
    return held(run_steps({{"SequenceInsert", {"s", "t", "i"}, {"y"}}}, {{"s", numbers({1, 2})}, {"t", Tensor::scalar(9.0f)}, {"i", at_position(i)}})[0]);
  };
  EXPECT_EQ(insert(0), std::vector<double>({9, 1, 2}));
  EXPECT_EQ(insert(2), std::vector<double>({1, 2, 9}));
  EXPECT_EQ(insert(-1), std::vector<double>({1, 9, 2}));
  EXPECT_EQ(insert(-2), std::vector<double>({9, 1, 2}));
  EXPECT_EQ(kind_of_error([&] { insert(3); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([&] { insert(-3); }), ErrorKind::Malformed);
}

TEST(Sequence, ErasesTheLastWherePositionIsLeftOut) {
  EXPECT_EQ(held(run_steps({{"SequenceErase", {"s"}, {"y"}}}, {{"s", numbers({1, 2, 3})}})[0]), std::vector<double>({1, 2}));
  EXPECT_EQ(kind_of_error([] { run_steps({{"SequenceErase", {"s"}, {"y"}}}, {{"s", numbers({})}}); }), ErrorKind::Malformed);
}

TEST(Sequence, DoesntChangeForOtherReaders) {
  const auto y = run_steps({{"SequenceConstruct", {"t"}, {"a"}}, {"SequenceInsert", {"a", "t"}, {"b"}}, {"SequenceErase", {"a"}, {"c"}}, {"SequenceLength", {"b"}, {"n"}}, {"SequenceLength", {"c"}, {"m"}},
                            {"Concat", {"n1", "m1"}, {"y"}, {attribute("axis", int64_t{0})}}},
                           {{"t", Tensor::scalar(1.0f)}, {"n1", Tensor::vector<int64_t>({0})}, {"m1", Tensor::vector<int64_t>({0})}});
  EXPECT_EQ(y[0].tensor().size(), 2);
  const auto n = run_steps({{"SequenceConstruct", {"t"}, {"a"}}, {"SequenceErase", {"a"}, {"c"}}, {"SequenceLength", {"a"}, {"n"}}}, {{"t", Tensor::scalar(1.0f)}});
  expect_tensor(n[0].tensor(), {}, {1});
}

TEST(Sequence, SplitsIntoPartsOfALengthAndARest) {
  const auto y = run_steps({{"SplitToSequence", {"x", "n"}, {"s"}}}, {{"x", counted({5, 2})}, {"n", Tensor::scalar<int64_t>(2)}});
  ASSERT_EQ(y[0].sequence().elements.size(), 3u);
  expect_tensor(y[0].sequence().elements[2], {1, 2}, {8, 9});
  for (const Tensor& bad : {Tensor::scalar<int64_t>(0), Tensor::scalar<int64_t>(-1), Tensor::vector<int64_t>({2, 2}), Tensor::vector<int64_t>({6, -1})})
    EXPECT_EQ(kind_of_error([&] { run_steps({{"SplitToSequence", {"x", "n"}, {"s"}}}, {{"x", counted({5, 2})}, {"n", bad}}); }), ErrorKind::Malformed);
}

TEST(Sequence, HoldsOneElementType) {
  EXPECT_EQ(kind_of_error([] { run_steps({{"SequenceConstruct", {"a", "b"}, {"s"}}}, {{"a", Tensor::scalar(1.0f)}, {"b", Tensor::scalar<int64_t>(1)}}); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([] { run_steps({{"SequenceEmpty", {}, {"e"}, {attribute("dtype", int64_t{7})}}, {"SequenceInsert", {"e", "t"}, {"s"}}}, {{"t", Tensor::scalar(1.0f)}}); }), ErrorKind::Malformed);
}

TEST(Sequence, IsRefusedWhereATensorIsNeeded) {
  EXPECT_EQ(kind_of_error([] { run_steps({{"Relu", {"s"}, {"y"}}}, {{"s", numbers({1})}}); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([] { run_steps({{"Add", {"s", "s"}, {"y"}}}, {{"s", numbers({1})}}); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([] { run_steps({{"Reshape", {"s", "s"}, {"y"}}}, {{"s", Datum::nothing()}}); }), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_error([] { run_steps({{"SequenceLength", {"s"}, {"y"}}}, {{"s", Tensor::scalar(1.0f)}}); }), ErrorKind::Malformed);
}

TEST(Sequence, ConcatenatesAlongAnOldOrANewAxis) {
  const auto parts = Datum::sequence({DType::F32, {counted({2}), counted({3})}});
  expect_tensor(run_steps({{"ConcatFromSequence", {"s"}, {"y"}, {attribute("axis", int64_t{0})}}}, {{"s", parts}})[0].tensor(), {5}, {0, 1, 0, 1, 2});
  const Attributes new_axis{attribute("axis", int64_t{1}), attribute("new_axis", int64_t{1})};
  const auto pair = Datum::sequence({DType::F32, {counted({2}), counted({2})}});
  expect_tensor(run_steps({{"ConcatFromSequence", {"s"}, {"y"}, new_axis}}, {{"s", pair}})[0].tensor(), {2, 2}, {0, 0, 1, 1});
  for (const Datum& bad : {parts, numbers({})})
    EXPECT_EQ(kind_of_error([&] { run_steps({{"ConcatFromSequence", {"s"}, {"y"}, new_axis}}, {{"s", bad}}); }), ErrorKind::Malformed);
}

TEST(Optional, HoldsATensorASequenceOrNothing) {
  const auto has = [](const Datum& d) { return to_scalar<int64_t>(run_steps({{"OptionalHasElement", {"o"}, {"y"}}}, {{"o", d}})[0].tensor()); };
  EXPECT_EQ(has(Tensor::scalar(0.0f)), 1);
  EXPECT_EQ(has(numbers({})), 1);
  EXPECT_EQ(has(Datum::nothing()), 0);
  EXPECT_TRUE(run_steps({{"Optional", {}, {"o"}}}, {})[0].is_nothing());
  EXPECT_EQ(held(run_steps({{"Optional", {"s"}, {"o"}}, {"OptionalGetElement", {"o"}, {"y"}}}, {{"s", numbers({4, 5})}})[0]), std::vector<double>({4, 5}));
  EXPECT_EQ(kind_of_error([] { run_steps({{"OptionalGetElement", {"o"}, {"y"}}}, {{"o", Datum::nothing()}}); }), ErrorKind::Malformed);
}

TEST(Sequence, AsAnOutputIsMoreThanTensorsOnlyCallersTake) {
  Graph graph;
  graph.opsets[""] = 18;
  {
    GraphEdit edit(graph);
    const ValueId s = edit.add_value("s");
    edit.add_node({"SequenceEmpty", "", "e", {}}, {}, {s});
    edit.add_output(s);
  }
  EXPECT_EQ(kind_of_error([&] { Session(graph).run(std::map<std::string, Tensor>{}); }), ErrorKind::Unsupported);
  EXPECT_TRUE(Session(graph).run_data({})[0].is_sequence());
}

}  // namespace
}  // namespace infopt::test
