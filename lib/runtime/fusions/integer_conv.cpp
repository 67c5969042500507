// Convolutions of codes: DequantizeLinear → Conv → QuantizeLinear, with what stands between.
#include "lib/base/error.h"
#include "lib/runtime/fusions/code_convolution.h"
#include "lib/runtime/fusions/code_sum.h"
#include "lib/runtime/fusions/integer_tail.h"
#include "lib/runtime/fusions/pads.h"
#include "lib/runtime/fusions/rules.h"

namespace infopt {
namespace {

class IntegerConvKernel : public Kernel {
 public:
  IntegerConvKernel(const Node& node, Codes input, std::vector<int64_t> pads, WeightCodes weights, const IntegerTail& tail,
                    const std::vector<float>& step, const CodedBias& bias)
      : convolution_(node, std::move(pads), std::move(weights.codes), std::move(weights.zeros)),
        input_(input),
        epilogue_(tail, step, bias),
        output_(tail.table    ? tail.table->to.dtype
                : tail.output ? tail.output->dtype
                              : DType::F32) {}

  void run(KernelContext& context) const override {
    const Tensor x = channels_last(context, 0);
    if (x.dtype() != input_.dtype)
      throw Error(ErrorKind::Malformed,
                  "codes of " + std::string(name_of(x.dtype())) + " with a zero point of " + std::string(name_of(input_.dtype)));
    const CodeConvolution::Ready ready = convolution_.ready(x);
    const cpu::Int8Epilogue& epilogue = epilogue_.get();
    Tensor residual;
    if (epilogue.residual) {
      Layout layout;
      if (context.in_any(1, layout).shape() != ready.shape) return run_broadcast(context, ready, x);
      residual = channels_last(context, 1);
    }
    Tensor& y = context.out(0, output_, ready.shape, Layout::ChannelsLast);
    CodeConvolution::run(ready, x, input_.zero, epilogue, residual.defined() ? &residual : nullptr, y);
  }

  ByItem by_item() const override { return ByItem::All; }
  std::string describe() const override {
    return std::string(convolution_.groups() > 1 ? "int8 grouped convolution" : "int8 convolution") + ", channels last, to " +
           std::string(name_of(output_)) + (epilogue_.get().residual ? ", with the residual" : "");
  }

 private:
  /// The residual has another shape: the sum is taken by itself.
  void run_broadcast(KernelContext& context, const CodeConvolution::Ready& ready, const Tensor& x) const {
    const cpu::Int8Epilogue& whole = epilogue_.get();
    cpu::Int8Epilogue first = whole;
    first.residual = false;
    first.table = nullptr;
    CodeOperand a{Tensor(whole.output, ready.shape), Layout::ChannelsLast}, b;
    CodeConvolution::run(ready, x, input_.zero, first, nullptr, a.tensor);
    b.tensor = context.in_any(1, b.layout);
    const CodePlan plan = plan_codes(a, b);
    Tensor& y = context.out(0, output_, plan.shape, plan.layout);
    combine_codes({whole.output, whole.residual_dtype, whole.output, whole.zero, whole.residual_zero, whole.zero2, whole.ratio,
                   whole.residual_ratio, whole.low2, whole.high2},
                  false, plan, a, b, y);
    auto* bytes = reinterpret_cast<uint8_t*>(y.mutable_raw());
    if (whole.table) cpu::int8_lookup(bytes, bytes, y.size(), whole.table);
  }

  CodeConvolution convolution_;
  Codes input_;
  TailEpilogue epilogue_;
  DType output_;
};

bool is_conv(const Node& node) { return node.is("Conv"); }

/// A Pad that puts zeros, or codes that mean zero, around the image: `input` becomes what it pads, and its pads are returned.
std::vector<int64_t> take_pads(PlanView& view, Codes& input, size_t spatial, std::vector<NodeId>& covers) {
  const Node* node = view.only_for_one(input.value);
  if (node && node->is("Pad")) {
    const Tensor* value = view.constant(node->input(2));
    if (node->input(2) == kNone ? input.zero != 0
                                : !value || value->size() != 1 || value->dtype() != input.dtype || to_scalar<int64_t>(*value) != input.zero)
      return {};
    const auto pads = spatial_pads(view, *node, spatial);
    if (pads.empty()) return {};
    covers.push_back(node->id);
    input.value = node->input(0);
    return pads;
  }
  const auto output = node ? quantizes(view, *node) : std::nullopt;
  const Node* pad = output && output->same_step(input) ? view.only_for_one(node->input(0)) : nullptr;
  const auto before = pad ? dequantized(view, pad->input(0)) : std::nullopt;
  if (!before || !before->same_step(input)) return {};
  const auto pads = zero_pads(view, *pad, spatial);
  if (pads.empty()) return {};
  covers.insert(covers.end(), {node->id, pad->id});
  input.value = before->value;
  return pads;
}

}  // namespace

std::optional<FusedStep> fuse_integer_conv(PlanView& view, const Node& node) {
  const auto tail = integer_tail(view, node, is_conv);
  if (!tail) return std::nullopt;
  const Node& conv = *tail->core;
  auto input = dequantized(view, conv.input(0));
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
  if ((offset && offset->shape() != Shape{codes->dim(0)}) || !read_bias(view, conv.input(2), *step, sum, bias))
    return refuse("its bias isn't constant, finite and one for each output channel");
  FusedStep out;
  out.covers = tail->covers;
  std::vector<int64_t> pads;
  if (!view.device() && view.only_for_one(conv.input(0)))
    pads = take_pads(view, *input, static_cast<size_t>(codes->rank() - 2), out.covers);
  out.inputs = {input->value};
  if (tail->residual) out.inputs.push_back(tail->residual->value);
  out.named = conv.id;
  if (const Device* device = view.device()) {
    out.kernel = device->integer_conv({WindowAttributes::of(conv), conv.i("group", 1), input->step(), weights->codes, weights->zeros,
                                       TailEpilogue(*tail, *step, bias).share()});
    return out;
  }
  out.kernel = std::make_unique<IntegerConvKernel>(conv, *input, std::move(pads), std::move(*weights), *tail, *step, bias);
  return out;
}

}  // namespace infopt
