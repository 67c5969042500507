// Conv and ConvTranspose, through oneDNN in float32; other floats are computed as float32.
#include <algorithm>
#include <mutex>

#include "lib/base/error.h"
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
  if (o.x.rank() < 3 || o.x.rank() > 5 || o.weights.rank() != o.x.rank())
    throw Error(o.x.rank() > 5 ? ErrorKind::Unsupported : ErrorKind::Malformed, "a convolution of " + to_string(o.x.shape()) + " with weights " + to_string(o.weights.shape()));
  o.x = convert_layout(o.x, layout, Layout::ChannelsLast);
  return o;
}

Tensor as_float(const Tensor& t) { return t.defined() ? cast(t, DType::F32) : t; }

void check_channels(const Operands& o, int64_t groups, int64_t in_channels, int64_t out_channels) {
  const bool divides = groups > 0 && in_channels % groups == 0 && out_channels % groups == 0;
  if (!divides || o.x.dim(1) != in_channels)
    throw Error(ErrorKind::Malformed, "an input of " + to_string(o.x.shape()) + " doesn't fit weights of " + to_string(o.weights.shape()) + " in " + std::to_string(groups) + " groups");
  if (o.bias.defined() && o.bias.shape() != Shape{out_channels}) throw Error(ErrorKind::Malformed, "the bias has shape " + to_string(o.bias.shape()) + ", not [" + std::to_string(out_channels) + "]");
}

class ConvKernel : public Kernel {
 public:
  explicit ConvKernel(const KernelSpec& spec)
      : window_(WindowAttributes::of(spec.node)), groups_(spec.node.i("group", 1)), constant_(spec.constant(1) != nullptr), post_(spec.post) {}

  void run(KernelContext& context) const override {
    Operands o = read_operands(context);
    const DType dtype = o.x.dtype();
    const Shape spatial(o.x.shape().begin() + 2, o.x.shape().end()), kernel(o.weights.shape().begin() + 2, o.weights.shape().end());
    check_channels(o, groups_, o.weights.dim(1) * groups_, o.weights.dim(0));
    const Window w = resolve_window(window_, spatial, kernel);
    Shape shape{o.x.dim(0), o.weights.dim(0)};
    shape.insert(shape.end(), w.out.begin(), w.out.end());
    const cpu::Convolution& engine = engine_for(w);
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

  std::string describe() const override { return "float convolution, oneDNN, channels last"; }

 private:
  /// With auto_pad the pads depend on the shape, so that a node may need several engines.
  const cpu::Convolution& engine_for(const Window& w) const {
    std::vector<int64_t> key = w.pads_begin;
    key.insert(key.end(), w.pads_end.begin(), w.pads_end.end());
    std::lock_guard lock(mutex_);
    for (const auto& [pads, engine] : engines_)
      if (pads == key) return *engine;
    cpu::ConvGeometry g{w.strides, w.dilations, w.pads_begin, w.pads_end, groups_, false, post_};
    engines_.emplace_back(std::move(key), std::make_unique<cpu::Convolution>(std::move(g)));
    return *engines_.back().second;
  }

  WindowAttributes window_;
  int64_t groups_;
  bool constant_;
  PostActivation post_;
  mutable std::mutex mutex_;
  mutable std::vector<std::pair<std::vector<int64_t>, std::unique_ptr<cpu::Convolution>>> engines_;
};

class ConvTransposeKernel : public Kernel {
 public:
  explicit ConvTransposeKernel(const KernelSpec& spec)
      : window_(WindowAttributes::of(spec.node)), extra_(spec.node.ints("output_padding")), wanted_(spec.node.ints("output_shape")), groups_(spec.node.i("group", 1)), post_(spec.post) {}

  void run(KernelContext& context) const override {
    Operands o = read_operands(context);
    const DType dtype = o.x.dtype();
    check_channels(o, groups_, o.weights.dim(0), o.weights.dim(1) * groups_);
    Shape shape{o.x.dim(0), o.weights.dim(1) * groups_};
    const cpu::ConvGeometry g = geometry(o, shape);
    const Tensor bias = as_float(o.bias);
    Tensor y(DType::F32, shape);
    cpu::Convolution(g).run(as_float(o.x), as_float(o.weights), false, bias.defined() ? &bias : nullptr, y);
    context.set(0, cast(y, dtype), Layout::ChannelsLast);
  }

  std::string describe() const override { return "float transposed convolution, oneDNN, channels last"; }

 private:
  cpu::ConvGeometry geometry(const Operands& o, Shape& shape) const {
    const size_t n = o.x.shape().size() - 2;
    auto at = [&](const std::vector<int64_t>& v, size_t i, int64_t otherwise) {
      if (!v.empty() && v.size() < n + (&v == &window_.pads ? n : 0)) throw Error(ErrorKind::Malformed, "an attribute has fewer entries than there are spatial axes");
      return v.empty() ? otherwise : v[i];
    };
    cpu::ConvGeometry g;
    g.groups = groups_;
    g.transposed = true;
    g.post = post_;
    const bool same = window_.auto_pad == "SAME_UPPER" || window_.auto_pad == "SAME_LOWER";
    for (size_t i = 0; i < n; ++i) {
      const int64_t in = o.x.dim(static_cast<int64_t>(i) + 2), kernel = o.weights.dim(static_cast<int64_t>(i) + 2);
      const int64_t stride = at(window_.strides, i, 1), dilation = at(window_.dilations, i, 1), extra = at(extra_, i, 0);
      if (stride < 1 || dilation < 1 || in < 1) throw Error(ErrorKind::Malformed, "a stride, dilation or axis below 1");
      const int64_t full = stride * (in - 1) + extra + (kernel - 1) * dilation + 1;
      int64_t begin = at(window_.pads, i, 0), out = full - begin - (window_.pads.empty() ? 0 : window_.pads[n + i]);
      if (!wanted_.empty() || same) {
        out = wanted_.empty() ? in * stride : wanted_[wanted_.size() - n + i];
        const int64_t total = std::max<int64_t>(0, full - out);  // what is asked for beyond lies behind
        begin = window_.auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      }
      if (out < 1) throw Error(ErrorKind::Malformed, "its pads leave nothing of the output");
      g.strides.push_back(stride);
      g.dilations.push_back(dilation);
      g.pads_begin.push_back(begin);
      // oneDNN wants (in - 1) * stride + extent - pads == out: what is added behind counts as a negative pad.
      g.pads_end.push_back(full - extra - begin - out);
      shape.push_back(out);
    }
    return g;
  }

  WindowAttributes window_;
  std::vector<int64_t> extra_, wanted_;
  int64_t groups_;
  PostActivation post_;
};

}  // namespace

std::vector<OpDef> op_conv() {
  return {
      {.name = "Conv", .cpu = [](const KernelSpec& s) -> std::unique_ptr<Kernel> { return std::make_unique<ConvKernel>(s); }, .fuses_activation = true},
      {.name = "ConvTranspose", .cpu = [](const KernelSpec& s) -> std::unique_ptr<Kernel> { return std::make_unique<ConvTransposeKernel>(s); }, .fuses_activation = true},
  };
}

}  // namespace infopt
