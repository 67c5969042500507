// MatMulInteger and ConvInteger behind DynamicQuantizeLinear, straight to float32.
#include "lib/base/error.h"
#include "lib/runtime/fusions/code_convolution.h"
#include "lib/runtime/fusions/dynamic_tail.h"
#include "lib/runtime/fusions/product_rows.h"
#include "lib/runtime/fusions/rules.h"

namespace infopt {
namespace {

/// Codes, the activations' scale, their zero point if there is one.
struct Activations {
  float scale = 1;
  int32_t zero = 0;

  Activations(KernelContext& context, bool has_zero) : scale(to_scalar<float>(context.in(1))) {
    if (has_zero) zero = static_cast<int32_t>(to_scalar<int64_t>(context.in(2)));
  }
};

void check_codes(const Tensor& x) {
  if (x.dtype() != DType::U8 && x.dtype() != DType::I8)
    throw Error(ErrorKind::Unsupported, "a product of codes of " + std::string(name_of(x.dtype())));
}

class DynamicProductKernel : public Kernel {
 public:
  DynamicProductKernel(std::shared_ptr<const cpu::PackedInt8> weights, DynamicTail tail, bool has_zero)
      : weights_(std::move(weights)), tail_(std::move(tail)), has_zero_(has_zero) {}

  void run(KernelContext& context) const override {
    const Tensor& x = context.in(0);
    check_codes(x);
    const Activations given(context, has_zero_);
    if (x.rank() < 1 || x.dim(-1) != weights_->k())
      throw Error(ErrorKind::Malformed,
                  "an input of " + to_string(x.shape()) + " doesn't fit weights of " + std::to_string(weights_->k()) + " rows");
    const DynamicEpilogue end(tail_, given.scale);
    Shape shape = x.shape();
    shape.back() = weights_->n();
    if (shape.size() < tail_.rank) shape.insert(shape.begin(), tail_.rank - shape.size(), 1);
    Tensor& y = context.out(0, DType::F32, shape);
    multiply_rows({x.raw(), x.dtype(), x.dim(-1), given.zero}, *weights_, end.epilogue, nullptr, y,
                  weights_->n() == 0 ? 0 : y.size() / weights_->n());
  }

  std::string describe() const override { return "int8 product with dynamic activations, to float32"; }

 private:
  std::shared_ptr<const cpu::PackedInt8> weights_;
  DynamicTail tail_;
  bool has_zero_;
};

class DynamicConvKernel : public Kernel {
 public:
  DynamicConvKernel(const Node& node, Tensor weights, DynamicTail tail, bool has_zero)
      : convolution_(node, {}, std::move(weights), tail.zeros), tail_(std::move(tail)), has_zero_(has_zero) {}

  void run(KernelContext& context) const override {
    const Tensor x = channels_last(context, 0);
    check_codes(x);
    const Activations given(context, has_zero_);
    const CodeConvolution::Ready ready = convolution_.ready(x);
    const DynamicEpilogue end(tail_, given.scale);
    CodeConvolution::run(ready, x, given.zero, end.epilogue, nullptr, context.out(0, DType::F32, ready.shape, Layout::ChannelsLast));
  }

  std::string describe() const override { return "int8 convolution with dynamic activations, channels last, to float32"; }

 private:
  CodeConvolution convolution_;
  DynamicTail tail_;
  bool has_zero_;
};

/// A step whose inputs are the core's codes, their scale and perhaps their zero point.
FusedStep step_of(const DynamicTail& tail) {
  FusedStep step;
  step.inputs = {tail.core->input(0), tail.scale};
  if (tail.core->input(2) != kNone) step.inputs.push_back(tail.core->input(2));
  step.covers = tail.covers;
  step.named = tail.core->id;
  return step;
}

}  // namespace

std::optional<FusedStep> fuse_dynamic_product(PlanView& view, const Node& node) {
  auto tail = dynamic_tail(view, node, "MatMulInteger");
  if (!tail) return std::nullopt;
  FusedStep step = step_of(*tail);
  const Tensor& weights = *view.constant(tail->core->input(1));
  if (const Device* device = view.device()) {
    step.kernel =
        device->dynamic_product({weights, tail->zeros, tail->scales, tail->bias, tail->bounds, step.inputs.size() > 2, tail->rank});
    if (!step.kernel) return std::nullopt;
    weights.release_pages();
    return step;
  }
  const int64_t k = weights.dim(0), n = weights.dim(1);
  const auto packed = std::make_shared<const cpu::PackedInt8>(weights.raw(), weights.dtype(), k, n, n, 1,
                                                              tail->zeros.empty() ? nullptr : tail->zeros.data());
  weights.release_pages();
  step.kernel = std::make_unique<DynamicProductKernel>(packed, std::move(*tail), step.inputs.size() > 2);
  return step;
}

std::optional<FusedStep> fuse_dynamic_conv(PlanView& view, const Node& node) {
  auto tail = dynamic_tail(view, node, "ConvInteger");
  if (!tail) return std::nullopt;
  const Node& core = *tail->core;
  const Tensor& weights = *view.constant(core.input(1));
  const int64_t groups = core.i("group", 1);
  if (groups < 1 || weights.dim(0) % groups != 0 || static_cast<int64_t>(tail->rank) > weights.rank()) return std::nullopt;
  FusedStep step = step_of(*tail);
  if (const Device* device = view.device()) {
    step.kernel = device->dynamic_conv({WindowAttributes::of(core), groups, weights, tail->zeros, tail->scales, tail->bias, tail->bounds, step.inputs.size() > 2});
    return step;
  }
  step.kernel = std::make_unique<DynamicConvKernel>(core, weights, std::move(*tail), step.inputs.size() > 2);
  return step;
}

}  // namespace infopt
