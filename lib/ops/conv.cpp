// Conv and ConvTranspose, through oneDNN in float32; other floats are computed as float32.
#include <algorithm>
#include <mutex>

#include "lib/base/error.h"
#include "lib/ops/conv.h"
#include "lib/ops/op.h"
#include "lib/runtime/cpu/convolution_engines.h"
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
  cpu::ConvolutionEngines engines_;
};

/// A transposed convolution whose kernel is its stride: every input pixel makes a block of its own, so that one product makes them all, and rows of the
/// blocks then go to their places.
class BlockProduct {
 public:
  static bool takes(const Window& w, int64_t groups, const Shape& kernel) {
    const auto all = [](const std::vector<int64_t>& v, int64_t wanted) { return std::all_of(v.begin(), v.end(), [&](int64_t i) { return i == wanted; }); };
    return groups == 1 && kernel.size() == 2 && w.strides == std::vector<int64_t>{kernel[0], kernel[1]} && all(w.pads_begin, 0) && all(w.pads_end, 0) && all(w.dilations, 1);
  }

  /// x (N, C, H, W) and y (N, M, H·kh, W·kw), channels last; weights (C, M, kh, kw).
  void run(const Tensor& x, const Tensor& weights, bool constant, const Tensor* bias, Tensor& y) const {
    const int64_t pixels = x.dim(0) * x.dim(2) * x.dim(3), in = x.dim(1), out = weights.dim(1), high = weights.dim(2), wide = weights.dim(3);
    const Tensor packed = packed_weights(weights, constant);
    Tensor tiled;
    if (bias) {
      tiled = Tensor(DType::F32, {1, high * wide * out});
      for (int64_t i = 0; i < high * wide; ++i) std::copy_n(bias->data<float>(), out, tiled.mutable_data<float>() + i * out);
    }
    const int64_t columns = x.dim(3), rows = pixels / columns, run = wide * out, each = high * run;
    const int64_t at_once = std::clamp<int64_t>(kBlockFloats / (columns * each), 1, rows);
    Tensor blocks(DType::F32, {at_once * columns, each});
    const Tensor flat = x.reshaped({pixels, in});
    for (int64_t row = 0; row < rows; row += at_once) {
      const int64_t count = std::min(at_once, rows - row);
      Tensor part = blocks.slice_front(0, count * columns);
      product_.run(flat.slice_front(row * columns, count * columns), false, packed, false, constant, bias ? &tiled : nullptr, part);
      const float* from = part.data<float>();
      float* to = y.mutable_data<float>() + row * columns * each;
      for (int64_t r = 0; r < count * columns; ++r, from += each) {
        float* block = to + (r / columns * high * columns + r % columns) * run;
        for (int64_t k = 0; k < high; ++k) std::copy_n(from + k * run, run, block + k * columns * run);
      }
    }
  }

 private:
  Tensor packed_weights(const Tensor& weights, bool constant) const {
    std::lock_guard lock(mutex_);
    if (packed_.defined()) return packed_;
    const int64_t in = weights.dim(0), out = weights.dim(1), taps = weights.dim(2) * weights.dim(3);
    Tensor packed(DType::F32, {in, taps * out});
    for (int64_t i = 0; i < in; ++i)
      for (int64_t o = 0; o < out; ++o)
        for (int64_t t = 0; t < taps; ++t) packed.mutable_data<float>()[(i * taps + t) * out + o] = weights.data<float>()[(i * out + o) * taps + t];
    if (constant) packed_ = packed;
    return packed;
  }

  static constexpr int64_t kBlockFloats = 1 << 16;  ///< of blocks on their way to their places: they stay in the cache

  cpu::Product product_;
  mutable std::mutex mutex_;
  mutable Tensor packed_;
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
    if (dtype == DType::F32 && BlockProduct::takes(w, groups_, {o.weights.shape().begin() + 2, o.weights.shape().end()}) && o.x.size() > 0) {
      blocks_.run(o.x, o.weights, constant_, o.bias.defined() ? &o.bias : nullptr, context.out(0, dtype, shape, Layout::ChannelsLast));
      return;
    }
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
  BlockProduct blocks_;
  cpu::ConvolutionEngines engines_;
};

}  // namespace

std::vector<OpDef> op_conv() {
  return {
      {.name = "Conv", .cpu = [](const KernelSpec& s) -> std::unique_ptr<Kernel> { return std::make_unique<ConvKernel>(s); }, .fuses_activation = true},
      {.name = "ConvTranspose", .cpu = [](const KernelSpec& s) -> std::unique_ptr<Kernel> { return std::make_unique<ConvTransposeKernel>(s); }},  // oneDNN's fast kernels take no activation along
  };
}

}  // namespace infopt
