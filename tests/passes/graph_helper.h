// Small graphs before and after a pass: what they are made of, and whether they still compute the same.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "lib/ir/edit.h"
#include "lib/onnx/export.h"
#include "lib/onnx/infer.h"
#include "lib/runtime/session.h"
#include "passes/pipeline.h"
#include "tests/support/model_text.h"

namespace infopt::test {

/// Numbers that are the same in every run: floats of mean 0 and variance 1 (or positive ones), small integers from 0, alternating bools.
inline Tensor noise(DType dtype, const Shape& shape, unsigned seed, bool positive = false) {
  std::mt19937 random(seed);
  std::vector<double> values;
  for (int64_t i = 0; i < element_count(shape); ++i) {
    double v = 0;
    for (int k = 0; k < 12; ++k) v += static_cast<double>(random()) / 4294967296.0;
    values.push_back(is_float(dtype) ? (positive ? std::fabs(v - 6) + 0.5 : v - 6) : static_cast<double>(random() % 2));
  }
  return cast(Tensor::vector(values).reshaped(shape), dtype);
}

/// The model of a graph in ONNX's textual form, with inferred types. Of its inputs, those named `w…` become constants of noise, and those
/// named `v…` constants of positive noise: weights and variances that nobody wants to write out.
inline Model graph_of(const std::string& text, int opset = 17) {
  Model model = model_of(text, opset);
  {
    GraphEdit edit(*model.graph);
    const std::vector<ValueId> inputs = model.graph->inputs();
    unsigned seed = 1;
    for (ValueId id : inputs) {
      const Value& v = model.graph->value(id);
      if (v.name[0] != 'w' && v.name[0] != 'v') continue;
      const Tensor constant = noise(v.type.dtype, *v.type.fixed_shape(), seed++, v.name[0] == 'v');
      edit.remove_input(id);
      edit.set_constant(id, constant);
    }
  }
  infer_types(model);
  return model;
}

inline Model copy_of(const Model& model) {
  Model copy = model;
  copy.graph = model.graph->clone();
  return copy;
}

using Settings = std::vector<std::pair<std::string, OptionValue>>;

/// The model after the pass, written and read again.
inline Model after(const Model& model, const std::string& pass, const Settings& settings = {}, EditLog* log = nullptr) {
  Model out = copy_of(model);
  Options options;
  for (const OptionDef& o : find_pass(pass)->options) options.set(o.name, o.otherwise);
  for (const auto& [name, value] : settings) options.set(name, value);
  Report report;
  static const std::vector<GroupRule> kNoGroups;
  run_pipeline(out, {{pass, options}}, {.profile = find_profile("ort-cpu"), .groups = kNoGroups}, report);
  if (log) *log = report.passes.at(0).edits;
  return parse_model(serialize_model(out));
}

/// The operators in the graph's order, bodies' in brackets: "Conv If[Add Mul][Relu]".
inline std::string ops(const Graph& graph) {
  std::string out;
  for (NodeId id : graph.order()) {
    out += (out.empty() ? "" : " ") + graph.node(id).op;
    for (const auto& body : graph.node(id).bodies()) out += "[" + ops(*body) + "]";
  }
  return out;
}
inline std::string ops(const Model& model) { return ops(*model.graph); }

inline const Node& node_of(const Model& model, const std::string& op) {
  for (NodeId id : model.graph->order())
    if (model.graph->node(id).op == op) return model.graph->node(id);
  throw std::runtime_error("no " + op + " in: " + ops(model));
}

/// The constant at an input of the first node of that operator.
inline const Tensor& constant_of(const Model& model, const std::string& op, size_t input) {
  const Tensor* t = model.graph->constant(node_of(model, op).input(input));
  if (!t) throw std::runtime_error("that input isn't constant");
  return *t;
}

inline std::vector<Tensor> outputs_of(const Model& model, int64_t open_dimension, unsigned seed) {
  std::map<std::string, Tensor> inputs;
  for (ValueId id : model.graph->inputs()) {
    const Value& v = model.graph->value(id);
    Shape shape;
    for (const Dim& d : v.type.shape) shape.push_back(d.size < 0 ? open_dimension : d.size);
    inputs[v.name] = noise(v.type.dtype, shape, seed++);
  }
  return Session(*model.graph).run(inputs);
}

/// The largest difference of any output, relative to the output's largest magnitude, on random inputs whose open dimensions are 1, 2 and 3.
inline double difference(const Model& a, const Model& b) {
  double worst = 0;
  for (int64_t open : {1, 2, 3}) {
    const auto x = outputs_of(a, open, 100 + static_cast<unsigned>(open)), y = outputs_of(b, open, 100 + static_cast<unsigned>(open));
    EXPECT_EQ(x.size(), y.size());
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      EXPECT_EQ(x[i].dtype(), y[i].dtype());
      EXPECT_EQ(x[i].shape(), y[i].shape());
      if (x[i].shape() != y[i].shape()) return 1e300;
      const auto p = to_vector<double>(x[i]), q = to_vector<double>(y[i]);
      double largest = 1e-30, apart = 0;
      for (size_t k = 0; k < p.size(); ++k) {
        if (p[k] == q[k] || (std::isnan(p[k]) && std::isnan(q[k]))) continue;
        largest = std::max(largest, std::fabs(p[k]));
        apart = std::max(apart, std::fabs(p[k] - q[k]));
      }
      worst = std::max(worst, apart / largest);
    }
  }
  return worst;
}

/// Rounding of some thousand float32 operations.
inline constexpr double kRounding = 2e-5;

struct Rewriting {
  std::string what, graph, expected_ops;
  int opset = 17;
};

/// A pass's table of cases: the operators afterwards, and outputs that differ by `bound` at most.
inline void expect_rewritten(const std::string& pass, const std::vector<Rewriting>& cases, double bound, const Settings& settings = {}) {
  for (const Rewriting& c : cases) {
    SCOPED_TRACE(c.what);
    const Model before = graph_of(c.graph, c.opset);
    const Model result = after(before, pass, settings);
    EXPECT_EQ(ops(result), c.expected_ops);
    EXPECT_LE(difference(before, result), bound);
  }
}

}  // namespace infopt::test
