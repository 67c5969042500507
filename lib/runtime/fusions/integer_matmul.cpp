// Products of two tensors of codes that both change from run to run, as in attention; MatMulInteger and ConvInteger by themselves.
#include <algorithm>

#include "lib/base/error.h"
#include "lib/runtime/fusions/activation_product.h"
#include "lib/runtime/fusions/code_convolution.h"
#include "lib/runtime/fusions/code_matmul.h"
#include "lib/runtime/fusions/dynamic_tail.h"
#include "lib/runtime/fusions/product_rows.h"
#include "lib/runtime/fusions/rules.h"

namespace infopt {
namespace {

void check_codes(const Tensor& t) {
  if (t.dtype() != DType::U8 && t.dtype() != DType::I8)
    throw Error(ErrorKind::Unsupported, "a product of codes of " + std::string(name_of(t.dtype())));
}

std::vector<int32_t> integers_of(const Tensor& t) {
  std::vector<int32_t> out;
  for (int64_t v : to_vector<int64_t>(t)) out.push_back(static_cast<int32_t>(v));
  return out;
}

class ActivationProductKernel : public Kernel {
 public:
  ActivationProductKernel(Codes a, Codes b, const IntegerTail& tail, const std::vector<float>& step)
      : a_(a),
        b_(b),
        epilogue_(tail, step, {}),
        output_(tail.table    ? tail.table->to.dtype
                : tail.output ? tail.output->dtype
                              : DType::F32) {}

  void run(KernelContext& context) const override {
    const Tensor &a = context.in(0), &b = context.in(1);
    if (a.dtype() != a_.dtype || b.dtype() != b_.dtype) throw Error(ErrorKind::Malformed, "codes and zero points of different types");
    CodeProductEnd end{epilogue_.get(), epilogue_.get().scale[0]};
    Tensor& y = context.out(0, output_, product_shape(a, b));
    multiply_codes({a, {a_.zero}}, {b, {b_.zero}}, end, y);
  }
  std::string describe() const override { return "int8 product of two activations, to " + std::string(name_of(output_)); }

 private:
  Codes a_, b_;
  TailEpilogue epilogue_;
  DType output_;
};

/// Two tensors from DynamicQuantizeLinear, their two scales, and their zero points where there are any.
class DynamicMatMulKernel : public Kernel {
 public:
  DynamicMatMulKernel(size_t a_zero, size_t b_zero, PostActivation bounds) : a_zero_(a_zero), b_zero_(b_zero), bounds_(bounds) {}

  void run(KernelContext& context) const override {
    const Tensor &a = context.in(0), &b = context.in(1);
    check_codes(a);
    check_codes(b);
    CodeProductEnd end;
    end.epilogue.output = DType::F32;
    end.scale = to_scalar<float>(context.in(2)) * to_scalar<float>(context.in(3));
    if (bounds_.kind == PostActivation::Clip) end.epilogue.low = bounds_.low, end.epilogue.high = bounds_.high;
    Tensor& y = context.out(0, DType::F32, product_shape(a, b));
    multiply_codes({a, {zero(context, a_zero_)}}, {b, {zero(context, b_zero_)}}, end, y);
  }
  std::string describe() const override { return "int8 product of two dynamic activations, to float32"; }

 private:
  static int32_t zero(KernelContext& context, size_t at) { return at ? static_cast<int32_t>(to_scalar<int64_t>(context.in(at))) : 0; }
  size_t a_zero_, b_zero_;  ///< inputs, 0: none
  PostActivation bounds_;
};

/// MatMulInteger. `weights`: the right side where it is constant.
class MatMulSumsKernel : public Kernel {
 public:
  MatMulSumsKernel(std::shared_ptr<const cpu::PackedInt8> weights, std::unique_ptr<Kernel> general)
      : weights_(std::move(weights)), general_(std::move(general)) {}

  void run(KernelContext& context) const override {
    const Tensor& a = context.in(0);
    check_codes(a);
    const bool one_zero = !context.has(2) || context.in(2).size() == 1;
    cpu::Int8Epilogue as_is;
    as_is.output = DType::I32;
    if (one_zero && weights_ && a.rank() >= 1 && a.dim(-1) == weights_->k()) {
      Shape shape = a.shape();
      shape.back() = weights_->n();
      Tensor& y = context.out(0, DType::I32, shape);
      return multiply_rows({a.raw(), a.dtype(), a.dim(-1), context.has(2) ? integers_of(context.in(2))[0] : 0}, *weights_, as_is, nullptr,
                           y, weights_->n() == 0 ? 0 : y.size() / weights_->n());
    }
    const Tensor& b = context.in(1);
    check_codes(b);
    const std::vector<int32_t> b_zeros = context.has(3) ? integers_of(context.in(3)) : std::vector<int32_t>{0};
    const bool fits =
        b_zeros.size() == 1 || (context.in(3).rank() == 1 && b.rank() > 1 && static_cast<int64_t>(b_zeros.size()) == b.dim(-1));
    if (!one_zero || !fits) return general_->run(context);  // a zero point for each row
    Tensor& y = context.out(0, DType::I32, product_shape(a, b));
    multiply_codes({a, context.has(2) ? integers_of(context.in(2)) : std::vector<int32_t>{0}}, {b, b_zeros}, {as_is, 1}, y);
  }
  std::string describe() const override { return weights_ ? "int8 product, to int32" : "int8 product of two activations, to int32"; }

 private:
  std::shared_ptr<const cpu::PackedInt8> weights_;
  std::unique_ptr<Kernel> general_;
};

/// ConvInteger with constant weights.
class ConvSumsKernel : public Kernel {
 public:
  ConvSumsKernel(const Node& node, Tensor weights, std::vector<int32_t> zeros)
      : convolution_(node, {}, std::move(weights), std::move(zeros)) {}

  void run(KernelContext& context) const override {
    const Tensor x = channels_last(context, 0);
    check_codes(x);
    const CodeConvolution::Ready ready = convolution_.ready(x);
    const int32_t zero = context.has(2) ? static_cast<int32_t>(to_scalar<int64_t>(context.in(2))) : 0;
    cpu::Int8Epilogue as_is;
    as_is.output = DType::I32;
    CodeConvolution::run(ready, x, zero, as_is, nullptr, context.out(0, DType::I32, ready.shape, Layout::ChannelsLast));
  }
  std::string describe() const override { return "int8 convolution, channels last, to int32"; }

 private:
  CodeConvolution convolution_;
};

/// The output of a DynamicQuantizeLinear that the value is, -1 where it is none.
int dynamic_output(PlanView& view, ValueId value) {
  const Node* node = view.producer(value);
  return node && node->is("DynamicQuantizeLinear") ? view.graph().value(value).output_index : -1;
}

std::optional<FusedStep> matmul_sums(PlanView& view, const Node& node) {
  const OpDef* op = find_op(node.domain, node.op, view.opset(node.domain));
  if (!op) return std::nullopt;
  std::shared_ptr<const cpu::PackedInt8> packed;
  const Tensor* weights = view.constant(node.input(1));
  std::vector<int32_t> zeros;
  if (weights && weights->rank() == 2 && (weights->dtype() == DType::U8 || weights->dtype() == DType::I8) &&
      column_zeros(view, node.input(3), weights->dim(1), zeros)) {
    const int64_t k = weights->dim(0), n = weights->dim(1);
    packed = std::make_shared<const cpu::PackedInt8>(weights->raw(), weights->dtype(), k, n, n, 1, zeros.empty() ? nullptr : zeros.data());
  }
  FusedStep step;
  step.inputs = node.inputs;
  step.kernel = std::make_unique<MatMulSumsKernel>(std::move(packed), op->cpu({view.graph(), node, view.opset(node.domain), {}, &view}));
  return step;
}

std::optional<FusedStep> conv_sums(PlanView& view, const Node& node) {
  const Tensor* weights = view.constant(node.input(1));
  const int64_t groups = node.i("group", 1);
  std::vector<int32_t> zeros;
  if (!weights || weights->rank() < 3 || weights->rank() > 5 || (weights->dtype() != DType::U8 && weights->dtype() != DType::I8) ||
      groups < 1 || weights->dim(0) % groups != 0 || !column_zeros(view, node.input(3), weights->dim(0), zeros)) {
    view.refuse(node, "its weights aren't constant codes");
    return std::nullopt;
  }
  FusedStep step;
  step.inputs = node.inputs;
  if (const Device* device = view.device()) {
    step.inputs = {node.input(0)};
    if (node.input(2) != kNone) step.inputs.push_back(node.input(2));
    step.kernel = device->dynamic_conv({WindowAttributes::of(node), groups, *weights, std::move(zeros), {}, {}, {}, node.input(2) != kNone});
    return step;
  }
  step.kernel = std::make_unique<ConvSumsKernel>(node, *weights, std::move(zeros));
  return step;
}

}  // namespace

std::optional<FusedStep> fuse_activation_product(PlanView& view, const IntegerTail& tail) {
  const Node& product = *tail.core;
  const auto a = dequantized(view, product.input(0)), b = dequantized(view, product.input(1));
  if (!a || !b || !product.is("MatMul") || tail.residual || (tail.table && tail.table->rank > 1)) return std::nullopt;
  WeightCodes one;
  one.scales = {b->scale};
  const auto step = sum_steps(*a, one, tail.output ? tail.output->scale : 1.0f);
  if (!step) {
    view.refuse(product, "its scales' product isn't a normal number");
    return std::nullopt;
  }
  FusedStep out;
  out.inputs = {a->value, b->value};
  out.covers = tail.covers;
  out.named = product.id;
  if (const Device* device = view.device()) out.kernel = device->code_product({.a = a->step(), .b = b->step(), .end = TailEpilogue(tail, *step, {}).share()});
  else out.kernel = std::make_unique<ActivationProductKernel>(*a, *b, tail, *step);
  return out;
}

std::optional<FusedStep> fuse_dynamic_matmul(PlanView& view, const Node& node) {
  FusedStep step;
  PostActivation bounds;
  const Node* at = &node;
  if (as_bounds(view, *at, bounds)) {
    step.covers.push_back(at->id);
    at = view.only_for_one(at->input(0));
  }
  const auto scaled = at ? scaled_sums(view, *at, "MatMulInteger") : std::nullopt;
  const Node* scales = scaled ? view.producer(scaled->scales) : nullptr;
  if (!scales || !scales->is("Mul") || scales->inputs.size() != 2) return std::nullopt;
  const Node& core = *scaled->core;
  step.inputs = {core.input(0), core.input(1), scales->input(0), scales->input(1)};
  if (dynamic_output(view, step.inputs[2]) != 1 || dynamic_output(view, step.inputs[3]) != 1) return std::nullopt;
  size_t zeros[2] = {};
  for (size_t i : {0u, 1u}) {
    const ValueId zero = core.input(2 + i);
    if (zero == kNone) continue;
    const Tensor* fixed = view.constant(zero);
    if (!(fixed && fixed->size() == 1) && dynamic_output(view, zero) != 2) return std::nullopt;
    zeros[i] = step.inputs.size();
    step.inputs.push_back(zero);
  }
  step.covers.insert(step.covers.end(), {scaled->scale->id, scaled->cast->id, core.id});
  std::erase(step.covers, node.id);
  step.named = core.id;
  if (const Device* device = view.device()) step.kernel = device->code_product({.a_zero = zeros[0], .b_zero = zeros[1], .bounds = bounds});
  else step.kernel = std::make_unique<DynamicMatMulKernel>(zeros[0], zeros[1], bounds);
  return step;
}

std::optional<FusedStep> fuse_integer_sums(PlanView& view, const Node& node) {
  if (node.is("MatMulInteger") && !view.device()) return matmul_sums(view, node);  // a device has an operator's kernel
  if (node.is("ConvInteger")) return conv_sums(view, node);
  return std::nullopt;
}

}  // namespace infopt
