// Runs one operator's kernel by itself: a graph of one node, and a context over plain tensors that can lay them channels-last.
#pragma once
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "lib/ir/edit.h"
#include "lib/ops/op.h"
#include "lib/runtime/layout.h"

namespace infopt::test {

struct Laid {
  Tensor tensor;
  Layout layout = Layout::Plain;
};

/// The inputs (undefined tensors are left out) as they are handed to a kernel, and what it makes of them.
class HarnessContext : public KernelContext {
 public:
  HarnessContext(std::vector<Laid> given, size_t outputs, bool reuse) : inputs_(std::move(given)), outputs_(outputs), reuse_(reuse) {}

  size_t inputs() const override { return inputs_.size(); }
  size_t outputs() const override { return outputs_.size(); }
  bool has(size_t i) const override { return i < inputs_.size() && inputs_[i].tensor.defined(); }
  const Tensor& in(size_t i) override {
    Laid& input = inputs_.at(i);
    if (input.layout != Layout::Plain) input = {convert_layout(input.tensor, input.layout, Layout::Plain), Layout::Plain};
    return input.tensor;
  }
  const Tensor& in_any(size_t i, Layout& layout) override {
    layout = inputs_.at(i).layout;
    return inputs_[i].tensor;
  }
  bool wanted(size_t i) const override { return i < outputs_.size(); }
  Tensor& out(size_t i, DType dtype, Shape shape, Layout layout) override {
    outputs_.at(i) = {Tensor(dtype, std::move(shape)), layout};
    return outputs_[i].tensor;
  }
  Tensor& out_reusing(size_t i, size_t j, DType dtype, Shape shape, Layout layout) override {
    Tensor& input = inputs_.at(j).tensor;
    if (!reuse_ || !input.unique() || dtype != input.dtype() || element_count(shape) != input.size()) return out(i, dtype, std::move(shape), layout);
    outputs_.at(i) = {input.reshaped(std::move(shape)), layout};
    return outputs_[i].tensor;
  }
  void set(size_t i, Tensor tensor, Layout layout) override { outputs_.at(i) = {std::move(tensor), layout}; }
  std::vector<Datum> run_body(size_t, std::vector<Datum>) override { throw std::logic_error("the harness has no bodies"); }

  const std::vector<Laid>& results() const { return outputs_; }

 private:
  std::vector<Laid> inputs_, outputs_;
  bool reuse_;
};

struct Op {
  std::string name;
  std::vector<Attribute> attributes = {};
  int64_t opset = 21;
  size_t outputs = 1;
  std::string domain = {};
};

inline std::unique_ptr<Kernel> make_op(const Op& op, const std::vector<Laid>& inputs) {
  Graph graph;
  graph.opsets[op.domain] = op.opset;
  GraphEdit edit(graph);
  std::vector<ValueId> ins, outs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& t = inputs[i].tensor;
    ins.push_back(t.defined() ? edit.add_input("x" + std::to_string(i), Type::tensor(t.dtype(), t.shape())) : kNone);
  }
  for (size_t i = 0; i < op.outputs; ++i) outs.push_back(edit.add_value("y" + std::to_string(i)));
  const NodeId id = edit.add_node({.op = op.name, .domain = op.domain, .attributes = op.attributes}, ins, outs);
  const OpDef* definition = find_op(op.domain, op.name, op.opset);
  if (!definition || !definition->cpu) throw std::logic_error("no kernel for " + op.name + " at opset " + std::to_string(op.opset));
  return definition->cpu({graph, graph.node(id), op.opset});
}

/// The outputs as the kernel left them. With `reuse` an output may take an input's memory (the inputs are copied first).
inline std::vector<Laid> run_laid(const Op& op, const std::vector<Laid>& inputs, bool reuse = false) {
  const auto kernel = make_op(op, inputs);
  std::vector<Laid> given;
  for (const Laid& input : inputs) given.push_back({reuse && input.tensor.defined() ? input.tensor.clone() : input.tensor, input.layout});
  HarnessContext context(std::move(given), op.outputs, reuse);
  kernel->run(context);
  return context.results();
}

/// Plain inputs to plain outputs.
inline std::vector<Tensor> run_op(const Op& op, const std::vector<Tensor>& inputs) {
  std::vector<Laid> laid;
  for (const Tensor& t : inputs) laid.push_back({t, Layout::Plain});
  std::vector<Tensor> plain;
  for (const Laid& result : run_laid(op, laid))
    plain.push_back(result.layout == Layout::Plain ? result.tensor : convert_layout(result.tensor, result.layout, Layout::Plain));
  return plain;
}

inline Laid channels_last(const Tensor& t) { return {convert_layout(t, Layout::Plain, Layout::ChannelsLast), Layout::ChannelsLast}; }
inline Tensor plain(const Laid& l) { return l.layout == Layout::Plain ? l.tensor : convert_layout(l.tensor, l.layout, Layout::Plain); }

/// Numbers that look random and are the same everywhere.
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : state_(seed * 2654435769u + 1) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  int64_t below(int64_t n) { return static_cast<int64_t>((next() >> 11) % static_cast<uint64_t>(n)); }
  float between(float low, float high) { return low + (high - low) * static_cast<float>(next() >> 40) / 16777216.0f; }
  Tensor floats(const Shape& shape, float low = -3, float high = 3) {
    Tensor t(DType::F32, shape);
    for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = between(low, high);
    return t;
  }

 private:
  uint64_t state_;
};

}  // namespace infopt::test
