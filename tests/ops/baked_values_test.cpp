// Operators beside ONNX Runtime: the rows of baked_values.inc, which bake_values.py makes.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/ops/op_harness.h"

namespace infopt::test {
namespace {

struct Row {
  struct {
    std::string name;
    std::vector<std::pair<std::string, Attribute::Data>> attributes;
    int64_t opset;
    size_t outputs;
  } op;
  std::vector<Tensor> inputs, expected;
};

std::vector<Row> rows() {
  return {
#include "tests/ops/baked_values.inc"
  };
}

void expect_same(const Tensor& actual, const Tensor& expected, const std::string& what) {
  ASSERT_EQ(actual.dtype(), expected.dtype()) << what;
  ASSERT_EQ(actual.shape(), expected.shape()) << what;
  const std::vector<double> x = to_vector<double>(actual), y = to_vector<double>(expected);
  const double slack = is_float(expected.dtype()) ? 2e-6 : 0;
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], y[i], slack * (1 + std::fabs(y[i]))) << what << ", element " << i;
}

TEST(BakedValues, AreWhatOnnxRuntimeComputes) {
  for (const Row& row : rows()) {
    Op op{row.op.name, {}, row.op.opset, row.op.outputs};
    std::string what = op.name + " of opset " + std::to_string(op.opset);
    for (const auto& [name, data] : row.op.attributes) {
      op.attributes.push_back({name, data, {}});
      what += " with " + name;
    }
    const std::vector<Tensor> actual = run_op(op, row.inputs);
    for (size_t i = 0; i < row.expected.size(); ++i) expect_same(actual[i], row.expected[i], what);
  }
}

}  // namespace
}  // namespace infopt::test
