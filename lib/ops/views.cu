// Operators that keep the elements where they are: the CPU's kernels, which read shapes alone, given tensors of the device.
#include "lib/base/error.h"
#include "lib/runtime/cuda/context.h"

namespace infopt::cuda {
namespace {

/// Input 0 and output 0 are on the device, the other inputs on the host.
class ViewContext : public KernelContext {
 public:
  explicit ViewContext(CudaContext& context) : context_(context) {}
  size_t inputs() const override { return context_.inputs(); }
  size_t outputs() const override { return 1; }
  bool has(size_t i) const override { return context_.has(i); }
  const Tensor& in(size_t i) override { return i == 0 ? context_.in(0) : context_.host(i); }
  const Tensor& in_any(size_t i, Layout& layout) override {
    if (i == 0) return context_.in_any(0, layout);
    layout = Layout::Plain;
    return context_.host(i);
  }
  bool wanted(size_t i) const override { return context_.wanted(i); }
  Tensor& out(size_t, DType, Shape, Layout) override { throw Error(ErrorKind::Defect, "a view made memory"); }
  Tensor& out_reusing(size_t i, size_t, DType dtype, Shape shape, Layout layout) override { return out(i, dtype, std::move(shape), layout); }
  void set(size_t i, Tensor tensor, Layout layout) override { context_.set(i, std::move(tensor), layout); }
  std::vector<Datum> run_body(size_t, std::vector<Datum>) override { return {}; }

 private:
  CudaContext& context_;
};

std::unique_ptr<Kernel> view(const KernelSpec& spec) {
  const OpDef* op = find_op(spec.node.domain, spec.node.op, spec.opset);
  if (!op) throw Error(ErrorKind::Unsupported, "opset " + std::to_string(spec.opset) + " of " + spec.node.op + " isn't known");
  if (!spec.graph.value(spec.node.input(0)).type.opaque.empty()) throw Error(ErrorKind::Unsupported, "no CUDA kernel of sequences and optionals");
  const std::shared_ptr<Kernel> host = op->cpu(spec);
  return make_cuda_kernel(
      [host](CudaContext& context) {
        ViewContext of(context);
        host->run(of);
      },
      "the same memory in another shape");
}

/// Not in training, and without a mask.
std::unique_ptr<Kernel> dropout(const KernelSpec& spec) {
  const Node& n = spec.node;
  if (n.outputs.size() > 1 && n.outputs[1] != kNone) throw Error(ErrorKind::Unsupported, "Dropout's mask is an output");
  const Tensor* training = n.input(2) == kNone ? nullptr : spec.constant(2);
  if (n.input(2) != kNone && (!training || to_scalar<int64_t>(*training) != 0)) throw Error(ErrorKind::Unsupported, "Dropout in training");
  return make_cuda_kernel(
      [](CudaContext& context) {
        Layout layout;
        const Tensor& x = context.in_any(0, layout);
        context.set(0, x, layout);
      },
      "the same memory");
}

}  // namespace

std::vector<CudaOp> cuda_views() {
  std::vector<CudaOp> ops;
  for (const char* name : {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}) ops.push_back({.name = name, .make = &view});
  ops.push_back({.name = "Dropout", .since = 7, .make = &dropout});
  return ops;
}

}  // namespace infopt::cuda
