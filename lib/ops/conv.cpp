// Conv and ConvTranspose, through oneDNN in float32; other floats are computed as float32.
#include <algorithm>
#include <mutex>

#include "lib/base/error.h"
#include "lib/ops/conv.h"
#include "lib/ops/op.h"
#include "lib/runtime/cpu/dnnl_adapter.h"
#include "lib/runtime/layout.h"
#include "lib/runtime/window.h"

namespace infopt {
namespace {

struct Operands {
  Tensor x, weights, bias;
};

Operands read_operands(KernelContext& context) {
  Operands o;
  Layout layout;
  o.x = context.in_any(0, layout);
  o.weights = context.in(1);
  if (context.has(2)) o.bias = context.in(2);
  check_conv_ranks(o.x.shape(), o.weights.shape());
  o.x = convert_layout(o.x, layout, Layout::ChannelsLast);
  return o;
}

Tensor as_float(const Tensor& t) { return t.defined() ? cast(t, DType::F32) : t; }

/// Engines by where the window goes: with auto_pad that depends on the input's shape, so that a node may need several.
class Engines {
 public:
  const cpu::Convolution& get(const Window& w, int64_t groups, bool transposed, const PostActivation& post) {
    std::vector<int64_t> key = w.pads_begin;
    key.insert(key.end(), w.pads_end.begin(), w.pads_end.end());
    if (transposed) key.insert(key.end(), w.out.begin(), w.out.end());
    std::lock_guard lock(mutex_);
    for (const auto& [pads, engine] : engines_)
      if (pads == key) return *engine;
    engines_.emplace_back(std::move(key), std::make_unique<cpu::Convolution>(cpu::ConvGeometry{w.strides, w.dilations, w.pads_begin, w.pads_end, groups, transposed, post}));
    return *engines_.back().second;
  }

 private:
  std::mutex mutex_;
  std::vector<std::pair<std::vector<int64_t>, std::unique_ptr<cpu::Convolution>>> engines_;
};

class ConvKernel : public Kernel {
 public:
  explicit ConvKernel(const KernelSpec& spec)
      : window_(WindowAttributes::of(spec.node)), groups_(spec.node.i("group", 1)), constant_(spec.constant(1) != nullptr), post_(spec.post) {}

  void run(KernelContext& context) const override {
    Operands o = read_operands(context);
    const DType dtype = o.x.dtype();
    const Shape spatial(o.x.shape().begin() + 2, o.x.shape().end()), kernel(o.weights.shape().begin() + 2, o.weights.shape().end());
    check_conv_channels(o.x.shape(), o.weights.shape(), o.bias, groups_, o.weights.dim(1) * groups_, o.weights.dim(0));
    const Window w = resolve_window(window_, spatial, kernel);
    Shape shape{o.x.dim(0), o.weights.dim(0)};
    shape.insert(shape.end(), w.out.begin(), w.out.end());
    const cpu::Convolution& engine = engines_.get(w, groups_, false, post_);
    if (dtype == DType::F32) {
      Tensor& y = context.out(0, dtype, shape, Layout::ChannelsLast);
      engine.run(o.x, o.weights, constant_, o.bias.defined() ? &o.bias : nullptr, y);
      return;
    }
    const Tensor bias = as_float(o.bias);
    Tensor y(DType::F32, shape);
    engine.run(as_float(o.x), as_float(o.weights), false, bias.defined() ? &bias : nullptr, y);
    context.set(0, cast(y, dtype), Layout::ChannelsLast);
  }

  ByItem by_item() const override { return ByItem::First; }
  std::string describe() const override { return "float convolution, oneDNN, channels last"; }

 private:
  WindowAttributes window_;
  int64_t groups_;
  bool constant_;
  PostActivation post_;
  mutable Engines engines_;
};

class ConvTransposeKernel : public Kernel {
 public:
  explicit ConvTransposeKernel(const KernelSpec& spec)
      : window_(WindowAttributes::of(spec.node)), extra_(spec.node.ints("output_padding")), wanted_(spec.node.ints("output_shape")), groups_(spec.node.i("group", 1)), constant_(spec.constant(1) != nullptr) {}

  void run(KernelContext& context) const override {
    Operands o = read_operands(context);
    const DType dtype = o.x.dtype();
    check_conv_channels(o.x.shape(), o.weights.shape(), o.bias, groups_, o.weights.dim(0), o.weights.dim(1) * groups_);
    const Window w = transposed_window(window_, extra_, wanted_, {o.x.shape().begin() + 2, o.x.shape().end()}, {o.weights.shape().begin() + 2, o.weights.shape().end()});
    Shape shape{o.x.dim(0), o.weights.dim(1) * groups_};
    shape.insert(shape.end(), w.out.begin(), w.out.end());
    const cpu::Convolution& engine = engines_.get(w, groups_, true, {});
    if (dtype == DType::F32) {
      engine.run(o.x, o.weights, constant_, o.bias.defined() ? &o.bias : nullptr, context.out(0, dtype, shape, Layout::ChannelsLast));
      return;
    }
    const Tensor bias = as_float(o.bias);
    Tensor y(DType::F32, shape);
    engine.run(as_float(o.x), as_float(o.weights), false, bias.defined() ? &bias : nullptr, y);
    context.set(0, cast(y, dtype), Layout::ChannelsLast);
  }

  std::string describe() const override { return "float transposed convolution, oneDNN, channels last"; }

 private:
  WindowAttributes window_;
  std::vector<int64_t> extra_, wanted_;
  int64_t groups_;
  bool constant_;
  mutable Engines engines_;
};

}  // namespace

std::vector<OpDef> op_conv() {
  return {
      {.name = "Conv", .cpu = [](const KernelSpec& s) -> std::unique_ptr<Kernel> { return std::make_unique<ConvKernel>(s); }, .fuses_activation = true},
      {.name = "ConvTranspose", .cpu = [](const KernelSpec& s) -> std::unique_ptr<Kernel> { return std::make_unique<ConvTransposeKernel>(s); }},  // oneDNN's fast kernels take no activation along
  };
}

}  // namespace infopt
