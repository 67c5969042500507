// Runs one operator in a graph of its own through the Session, for tests of operators that move data.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/ir/edit.h"
#include "lib/runtime/session.h"

namespace infopt::test {

using Attributes = std::vector<Attribute>;

inline Attribute attribute(std::string name, Attribute::Data data) { return {std::move(name), std::move(data), {}}; }
inline Attribute ints(std::string name, std::vector<int64_t> values) { return attribute(std::move(name), std::move(values)); }
inline Attribute text(std::string name, std::string value) { return attribute(std::move(name), std::move(value)); }

/// The outputs of one node of the default domain. An undefined tensor is an input left out.
inline std::vector<Tensor> run_op(const std::string& op, int64_t opset, const std::vector<Tensor>& inputs, Attributes attributes = {},
                                  size_t outputs = 1) {
  Graph graph;
  graph.opsets[""] = opset;
  std::unordered_map<ValueId, Tensor> feeds;
  {
    GraphEdit edit(graph);
    std::vector<ValueId> in, out;
    for (const Tensor& t : inputs) {
      in.push_back(t.defined() ? edit.add_input("x" + std::to_string(in.size()), Type::tensor(t.dtype(), t.shape())) : kNone);
      if (t.defined()) feeds[in.back()] = t;
    }
    for (size_t i = 0; i < outputs; ++i) out.push_back(edit.add_value("y" + std::to_string(i)));
    edit.add_node({op, "", "node", std::move(attributes)}, in, out);
    for (const ValueId id : out) edit.add_output(id);
  }
  return Session(graph).run(feeds);
}

inline Tensor floats(Shape shape, std::vector<float> values) { return Tensor::of<float>(std::move(shape), std::span<const float>(values)); }
inline Tensor longs(Shape shape, std::vector<int64_t> values) {
  return Tensor::of<int64_t>(std::move(shape), std::span<const int64_t>(values));
}
inline Tensor bools(std::vector<int64_t> values) { return cast(Tensor::vector(values), DType::Bool); }
inline Tensor strings(std::vector<std::string> values) {
  Tensor t(DType::String, {static_cast<int64_t>(values.size())});
  t.mutable_strings() = std::move(values);
  return t;
}
/// 0, 1, 2, … of a shape.
inline Tensor counted(Shape shape, DType dtype = DType::F32) {
  Tensor t(DType::F64, std::move(shape));
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<double>()[i] = static_cast<double>(i);
  return cast(t, dtype);
}

inline void expect_tensor(const Tensor& actual, const Shape& shape, const std::vector<double>& values, double tolerance = 0) {
  EXPECT_EQ(actual.shape(), shape);
  const std::vector<double> got = to_vector<double>(actual);
  ASSERT_EQ(got.size(), values.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], values[i], tolerance) << "element " << i;
}

inline ErrorKind kind_of_error(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& e) {
    return e.kind();
  }
  ADD_FAILURE() << "no error";
  return ErrorKind::Defect;
}

}  // namespace infopt::test
