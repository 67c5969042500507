#include "lib/runtime/fold.h"

#include "lib/base/error.h"
#include "lib/runtime/layout.h"

namespace infopt {
namespace {

class ConstantContext : public KernelContext {
 public:
  ConstantContext(const Node& node, const std::vector<Tensor>& inputs) : node_(node), inputs_(inputs), outputs_(node.outputs.size()) {}

  size_t inputs() const override { return inputs_.size(); }
  size_t outputs() const override { return outputs_.size(); }
  bool has(size_t i) const override { return i < inputs_.size() && inputs_[i].defined(); }
  const Tensor& in(size_t i) override {
    if (!has(i)) throw Error(ErrorKind::Malformed, "its input " + std::to_string(i) + " is missing");
    return inputs_[i];
  }
  const Tensor& in_any(size_t i, Layout& layout) override {
    layout = Layout::Plain;
    return in(i);
  }
  bool wanted(size_t i) const override { return i < node_.outputs.size() && node_.outputs[i] != kNone; }
  Tensor& out(size_t i, DType dtype, Shape shape, Layout layout) override { return put(i, Tensor(dtype, std::move(shape)), layout); }
  Tensor& out_reusing(size_t i, size_t, DType dtype, Shape shape, Layout layout) override { return out(i, dtype, std::move(shape), layout); }
  void set(size_t i, Tensor tensor, Layout layout) override { put(i, std::move(tensor), layout); }
  std::vector<Datum> run_body(size_t, std::vector<Datum>) override { throw Error(ErrorKind::Defect, "a body among constants"); }

  std::vector<Tensor> results() {
    for (auto& o : outputs_)
      if (o.layout != Layout::Plain) o = {convert_layout(o.tensor, o.layout, Layout::Plain), Layout::Plain};
    std::vector<Tensor> out;
    for (auto& o : outputs_) out.push_back(std::move(o.tensor));
    return out;
  }

 private:
  struct Output {
    Tensor tensor;
    Layout layout = Layout::Plain;
  };
  Tensor& put(size_t i, Tensor tensor, Layout layout) {
    if (i >= outputs_.size()) outputs_.resize(i + 1);
    outputs_[i] = {std::move(tensor), layout};
    if (outputs_[i].tensor.rank() < 3) outputs_[i].layout = Layout::Plain;
    return outputs_[i].tensor;
  }

  const Node& node_;
  const std::vector<Tensor>& inputs_;
  std::vector<Output> outputs_;
};

}  // namespace

std::vector<Tensor> run_alone(const Kernel& kernel, const Node& node, const std::vector<Tensor>& inputs) {
  ConstantContext context(node, inputs);
  kernel.run(context);
  return context.results();
}

std::vector<Tensor> compute_constant(const Kernel& kernel, const Node& node, const std::vector<Tensor>& inputs) {
  ConstantContext context(node, inputs);
  try {
    kernel.run(context);
  } catch (const Error&) {
    return {};
  }
  std::vector<Tensor> out = context.results();
  for (size_t i = 0; i < node.outputs.size(); ++i)
    if (node.outputs[i] != kNone && !out[i].defined()) return {};
  return out;
}

}  // namespace infopt
