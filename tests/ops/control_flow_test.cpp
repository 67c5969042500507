// If, Loop and Scan with bodies, and Einsum. Expected values follow from the definitions by hand, or from numpy.einsum where it is named.
#include "tests/ops/data_harness.h"

namespace infopt::test {
namespace {

using Names = std::vector<std::pair<std::string, Type>>;

/// A body from steps {op, inputs by name, outputs by name}; unknown names become inputs in the order given by `inputs`.
struct BodyNode {
  std::string op;
  std::vector<std::string> inputs, outputs;
  Attributes attributes = {};
};
std::shared_ptr<Graph> body(const Names& inputs, const std::vector<BodyNode>& nodes, const std::vector<std::string>& outputs) {
  auto graph = std::make_shared<Graph>();
  graph->opsets[""] = 16;
  GraphEdit edit(*graph);
  std::map<std::string, ValueId> values;
  for (const auto& [name, type] : inputs) values[name] = edit.add_input(name, type);
  for (const BodyNode& node : nodes) {
    std::vector<ValueId> in, out;
    for (const std::string& name : node.inputs) in.push_back(values.at(name));
    for (const std::string& name : node.outputs) out.push_back(values[name] = edit.add_value(name));
    edit.add_node({node.op, "", node.outputs.at(0), node.attributes}, in, out);
  }
  for (const std::string& name : outputs) edit.add_output(values.at(name));
  return graph;
}

const Type kLong = Type::tensor(DType::I64, {}), kBool = Type::tensor(DType::Bool, {}), kFloat = Type::tensor(DType::F32, {});

TEST(If, RunsTheChosenBranchWhateverTheAttributesOrder) {
  const auto constant = [](float v) { return body({}, {{"Constant", {}, {"c"}, {attribute("value_float", v)}}}, {"c"}); };
  const Attributes branches{attribute("else_branch", constant(1)), attribute("then_branch", constant(2))};
  expect_tensor(run_op("If", 16, {bools({1}).reshaped({})}, branches)[0], {}, {2});
  expect_tensor(run_op("If", 16, {bools({0}).reshaped({})}, branches)[0], {}, {1});
  EXPECT_EQ(kind_of_error([&] { run_op("If", 16, {bools({0, 1})}, branches); }), ErrorKind::Malformed);
}

/// Adds the iteration's number to the state, gives the state out, and goes on while the state is below 3.
std::shared_ptr<Graph> counting_body() {
  return body({{"i", kLong}, {"go", kBool}, {"state", kLong}},
              {{"Add", {"i", "state"}, {"next"}},
               {"Constant", {}, {"limit"}, {attribute("value_int", int64_t{3})}},
               {"Less", {"next", "limit"}, {"again"}},
               {"Identity", {"next"}, {"given"}}},
              {"again", "next", "given"});
}

TEST(Loop, EndsByConditionOrCount) {
  const Attributes attributes{attribute("body", counting_body())};
  const Tensor zero = Tensor::scalar<int64_t>(0), yes = bools({1}).reshaped({});
  auto y = run_op("Loop", 16, {Tensor::scalar<int64_t>(9), yes, zero}, attributes, 2);  // states 0, 1, 3
  expect_tensor(y[0], {}, {3});
  expect_tensor(y[1], {3}, {0, 1, 3});
  y = run_op("Loop", 16, {Tensor::scalar<int64_t>(2), {}, zero}, attributes, 2);
  expect_tensor(y[1], {2}, {0, 1});
  y = run_op("Loop", 16, {{}, yes, zero}, attributes, 2);
  expect_tensor(y[1], {3}, {0, 1, 3});
}

TEST(Loop, GivesEmptyScanOutputsWhenItNeverRuns) {
  const auto y = run_op("Loop", 16, {Tensor::scalar<int64_t>(0), {}, Tensor::scalar<int64_t>(7)}, {attribute("body", counting_body())}, 2);
  expect_tensor(y[0], {}, {7});
  EXPECT_EQ(y[1].size(), 0);
}

TEST(Scan, GoesBackwardAlongAnyAxis) {
  const auto sum =
      body({{"state", kFloat}, {"x", kFloat}}, {{"Add", {"state", "x"}, {"next"}}, {"Identity", {"next"}, {"given"}}}, {"next", "given"});
  const Attributes attributes{attribute("body", sum),         attribute("num_scan_inputs", int64_t{1}),
                              ints("scan_input_axes", {1}),   ints("scan_input_directions", {1}),
                              ints("scan_output_axes", {-1}), ints("scan_output_directions", {0})};
  const auto y = run_op("Scan", 16, {floats({2}, {0, 100}), counted({2, 3})}, attributes, 2);
  expect_tensor(y[0], {2}, {3, 112});
  expect_tensor(y[1], {2, 3}, {2, 3, 3, 105, 109, 112});
}

TEST(Scan, TakesABatchAndLengthsInOpset8) {
  const auto sum =
      body({{"state", kFloat}, {"x", kFloat}}, {{"Add", {"state", "x"}, {"next"}}, {"Identity", {"next"}, {"given"}}}, {"next", "given"});
  const auto y = run_op("Scan", 8, {longs({2}, {2, 1}), floats({2}, {0, 100}), counted({2, 2})},
                        {attribute("body", sum), attribute("num_scan_inputs", int64_t{1})}, 2);
  expect_tensor(y[0], {2}, {1, 102});
  expect_tensor(y[1], {2, 2}, {0, 1, 102, 0});
}

TEST(Einsum, ContractsByTheEquation) {  // numpy.einsum(equation, np.arange(…).reshape(…)…)
  const auto einsum = [](const char* equation, const std::vector<Tensor>& inputs) {
    return run_op("Einsum", 12, inputs, {text("equation", equation)})[0];
  };
  expect_tensor(einsum("ij,jk->ik", {counted({2, 3}), counted({3, 2})}), {2, 2}, {10, 13, 28, 40});
  expect_tensor(einsum("ij , kj", {counted({2, 3}), counted({2, 3})}), {2, 2}, {5, 14, 14, 50});
  expect_tensor(einsum("...ii->...i", {counted({2, 2, 2})}), {2, 2}, {0, 3, 4, 7});
  expect_tensor(einsum("bij,bkj,k->bi", {counted({2, 1, 2}), counted({2, 2, 2}), counted({2})}), {2, 1}, {3, 33});
  expect_tensor(einsum("i,j->ji", {counted({2}, DType::I32), counted({3}, DType::I32)}), {3, 2}, {0, 0, 0, 1, 0, 2});
  expect_tensor(einsum("ij->", {counted({2, 3}, DType::F64)}), {}, {15});
  expect_tensor(einsum("b...i,b...i->b...", {counted({2, 1, 2}), counted({2, 3, 2})}), {2, 3}, {1, 3, 5, 33, 43, 53});
  for (const char* bad : {"ij,jk->iz", "ij->ij", "ij,jkl", "ij,j1->i", "ij,jk->ii"})
    EXPECT_EQ(kind_of_error([&] { einsum(bad, {counted({2, 3}), counted({3, 2})}); }), ErrorKind::Malformed) << bad;
}

TEST(Random, DrawsTheSameNumbersInEveryRun) {
  const Attributes attributes{ints("shape", {1000}), attribute("seed", 3.0F)};
  const std::vector<double> a = to_vector<double>(run_op("RandomNormal", 14, {}, attributes)[0]),
                            b = to_vector<double>(run_op("RandomNormal", 14, {}, attributes)[0]);
  EXPECT_EQ(a, b);
  double mean = 0, square = 0;
  for (const double v : a) mean += v / 1000, square += v * v / 1000;
  EXPECT_NEAR(mean, 0, 0.15);  // some five standard errors
  EXPECT_NEAR(square, 1, 0.25);
}

}  // namespace
}  // namespace infopt::test
