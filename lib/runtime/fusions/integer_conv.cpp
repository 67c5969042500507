// Convolutions of codes: DequantizeLinear → Conv → QuantizeLinear, with what stands between.
#include <mutex>

#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/runtime/cpu/int8_conv.h"
#include "lib/runtime/fusions/code_sum.h"
#include "lib/runtime/fusions/integer_tail.h"
#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/layout.h"
#include "lib/runtime/window.h"

namespace infopt {
namespace {

Tensor channels_last(KernelContext& context, size_t i) {
  Layout layout;
  const Tensor& t = context.in_any(i, layout);
  return t.rank() < 3 ? t : convert_layout(t, layout, Layout::ChannelsLast);
}

class IntegerConvKernel : public Kernel {
 public:
  IntegerConvKernel(const Node& node, Codes input, CodedWeights weights, const IntegerTail& tail, const std::vector<float>& step, const CodedBias& bias)
      : window_(WindowAttributes::of(node)), groups_(node.i("group", 1)), input_(input), weights_(std::move(weights)), epilogue_(tail, step, bias),
        output_(tail.table ? tail.table->to.dtype : tail.output ? tail.output->dtype : DType::F32) {}

  void run(KernelContext& context) const override {
    const Tensor x = channels_last(context, 0);
    if (x.dtype() != input_.dtype) throw Error(ErrorKind::Malformed, "codes of " + std::string(name_of(x.dtype())) + " with a zero point of " + std::string(name_of(input_.dtype)));
    if (x.rank() != weights_.codes.rank() || x.dim(1) != weights_.codes.dim(1) * groups_)
      throw Error(ErrorKind::Malformed, "an input of " + to_string(x.shape()) + " doesn't fit weights of " + to_string(weights_.codes.shape()) + " in " + std::to_string(groups_) + " groups");
    const Shape spatial(x.shape().begin() + 2, x.shape().end()), kernel(weights_.codes.shape().begin() + 2, weights_.codes.shape().end());
    const Window w = resolve_window(window_, spatial, kernel);
    const cpu::Int8Convolution& engine = engine_for(w);
    const cpu::Int8Epilogue& epilogue = epilogue_.get();
    Shape shape{x.dim(0), weights_.codes.dim(0)};
    shape.insert(shape.end(), w.out.begin(), w.out.end());
    Tensor residual;
    if (epilogue.residual) {
      Layout layout;
      if (context.in_any(1, layout).shape() != shape) return run_broadcast(context, engine, x, shape);
      residual = channels_last(context, 1);
    }
    Tensor& y = context.out(0, output_, shape, Layout::ChannelsLast);
    if (y.size() == 0) return;
    Tensor bytes = epilogue.output == output_ ? y : Tensor(epilogue.output, shape, std::make_shared<Tensor>(y), y.raw());
    share_work(engine.tasks(x.shape()), 1, [&](int64_t begin, int64_t end) { engine.run(x, epilogue, residual.defined() ? &residual : nullptr, bytes, begin, end); });
  }

  /// The residual has another shape: the sum is taken by itself.
  void run_broadcast(KernelContext& context, const cpu::Int8Convolution& engine, const Tensor& x, const Shape& shape) const {
    const cpu::Int8Epilogue& whole = epilogue_.get();
    cpu::Int8Epilogue first = whole;
    first.residual = false;
    first.table = nullptr;
    CodeOperand a{Tensor(whole.output, shape), Layout::ChannelsLast}, b;
    engine.run(x, first, nullptr, a.tensor, 0, engine.tasks(x.shape()));
    b.tensor = context.in_any(1, b.layout);
    const CodePlan plan = plan_codes(a, b);
    Tensor& y = context.out(0, output_, plan.shape, plan.layout);
    combine_codes({whole.output, whole.residual_dtype, whole.output, whole.zero, whole.residual_zero, whole.zero2, whole.ratio, whole.residual_ratio, whole.low2, whole.high2}, false, plan, a, b, y);
    auto* bytes = reinterpret_cast<uint8_t*>(y.mutable_raw());
    if (whole.table) cpu::int8_lookup(bytes, bytes, y.size(), whole.table);
  }

  std::string describe() const override { return std::string(groups_ > 1 ? "int8 grouped convolution" : "int8 convolution") + ", channels last, to " + std::string(name_of(output_)) + (epilogue_.get().residual ? ", with the residual" : ""); }

 private:
  const cpu::Int8Convolution& engine_for(const Window& w) const {
    std::vector<int64_t> key = w.pads_begin;
    key.insert(key.end(), w.pads_end.begin(), w.pads_end.end());
    std::lock_guard lock(mutex_);
    for (const auto& [pads, engine] : engines_)
      if (pads == key) return *engine;
    const cpu::ConvGeometry g{w.strides, w.dilations, w.pads_begin, w.pads_end, groups_};
    engines_.emplace_back(std::move(key), std::make_unique<cpu::Int8Convolution>(g, weights_.codes, input_.dtype, input_.zero, weights_.zeros.empty() ? nullptr : weights_.zeros.data()));
    weights_.codes.release_pages();
    return *engines_.back().second;
  }

  WindowAttributes window_;
  int64_t groups_;
  Codes input_;
  CodedWeights weights_;
  TailEpilogue epilogue_;
  DType output_;
  mutable std::mutex mutex_;
  mutable std::vector<std::pair<std::vector<int64_t>, std::unique_ptr<cpu::Int8Convolution>>> engines_;
};

bool is_conv(const Node& node) { return node.is("Conv"); }

}  // namespace

std::optional<FusedStep> fuse_integer_conv(PlanView& view, const Node& node) {
  const auto tail = integer_tail(view, node, is_conv);
  if (!tail) return std::nullopt;
  const Node& conv = *tail->core;
  const auto input = dequantized(view, conv.input(0));
  if (!input) return std::nullopt;
  const auto refuse = [&](const char* why) {
    view.refuse(conv, why);
    return std::nullopt;
  };
  const Node* maker = view.producer(conv.input(1));
  const Tensor* codes = maker && maker->is("DequantizeLinear") ? view.constant(maker->input(0)) : nullptr;
  if (!codes) return refuse("its weights aren't constant codes");
  if (codes->rank() < 3 || codes->rank() > 5) return refuse("an integer convolution has 1 to 3 spatial axes");
  if (tail->table && static_cast<int64_t>(tail->table->rank) > codes->rank()) return std::nullopt;
  auto weights = dequantized_weights(view, conv.input(1), 0, codes->rank());
  if (!weights) return refuse("its weights' scales aren't one for each output channel");
  const auto step = sum_steps(*input, *weights, tail->output ? tail->output->scale : 1.0f);
  if (!step) return refuse("its scales' product isn't a normal number");
  const int64_t sum = largest_sum(*input, *weights);
  if (sum > kMostSum) return refuse("its sums may not fit 32 bits");
  CodedBias bias;
  const Tensor* offset = view.constant(conv.input(2));
  if ((offset && offset->shape() != Shape{codes->dim(0)}) || !read_bias(view, conv.input(2), *step, sum, bias)) return refuse("its bias isn't constant, finite and one for each output channel");
  FusedStep out;
  out.inputs = {input->value};
  if (tail->residual) out.inputs.push_back(tail->residual->value);
  out.covers = tail->covers;
  out.named = conv.id;
  if (const Device* device = view.device()) {
    out.kernel = device->integer_conv({WindowAttributes::of(conv), conv.i("group", 1), input->step(), weights->codes, weights->zeros, TailEpilogue(*tail, *step, bias).share()});
    return out;
  }
  out.kernel = std::make_unique<IntegerConvKernel>(conv, *input, std::move(*weights), *tail, *step, bias);
  return out;
}

}  // namespace infopt
