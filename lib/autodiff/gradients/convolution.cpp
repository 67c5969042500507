// y = x ∗ w + b. By x: the transposed convolution of dy; by w: x correlated with dy; by b: sums of dy over all but the channels.
#include <map>
#include <mutex>

#include "lib/autodiff/gradient.h"
#include "lib/ops/conv.h"
#include "lib/runtime/cpu/dnnl_adapter.h"
#include "lib/runtime/cpu/dnnl_gradient.h"

namespace infopt {
namespace {

constexpr Layout kLast = Layout::ChannelsLast;

/// Where dy (channels last) is seen as rows of channels, their sums.
Tensor sum_channels(const Tensor& dy) { return reduce_to(dy.reshaped({dy.size() / dy.dim(1), dy.dim(1)}), {dy.dim(1)}); }

/// One node's, whose pads may hang on the shape.
class Engines {
 public:
  explicit Engines(const KernelSpec& spec)
      : attributes_(WindowAttributes::of(spec.node)), extra_(spec.node.ints("output_padding")), wanted_(spec.node.ints("output_shape")), groups_(spec.node.i("group", 1)), transposed_(spec.node.is("ConvTranspose")) {}

  const cpu::ConvolutionGradient& gradient(const Shape& x, const Shape& w) const { return *find(x, w).gradient; }
  const cpu::Convolution& forward(const Shape& x, const Shape& w) const { return *find(x, w).forward; }

 private:
  struct Engine {
    std::unique_ptr<cpu::ConvolutionGradient> gradient;
    std::unique_ptr<cpu::Convolution> forward;  ///< of the same window: what a transposed convolution's gradient by its input is
  };

  const Engine& find(const Shape& x, const Shape& w) const {
    const Shape spatial(x.begin() + 2, x.end()), kernel(w.begin() + 2, w.end());
    const Window window = transposed_ ? transposed_window(attributes_, extra_, wanted_, spatial, kernel) : resolve_window(attributes_, spatial, kernel);
    std::lock_guard lock(mutex_);
    Engine& e = engines_[{window.pads_begin, window.pads_end}];
    if (!e.gradient) {
      const cpu::ConvGeometry g{window.strides, window.dilations, window.pads_begin, window.pads_end, groups_, false, {}};
      e.gradient = std::make_unique<cpu::ConvolutionGradient>(g);
      e.forward = std::make_unique<cpu::Convolution>(g);
    }
    return e;
  }

  WindowAttributes attributes_;
  std::vector<int64_t> extra_, wanted_;
  int64_t groups_;
  bool transposed_;
  mutable std::mutex mutex_;
  mutable std::map<std::pair<std::vector<int64_t>, std::vector<int64_t>>, Engine> engines_;
};

GradientFunction convolution(const KernelSpec& spec) {
  return [engines = std::make_shared<Engines>(spec)](GradientContext& c) {
    const Tensor dy = c.dy(0, kLast), weights = c.in(1);
    const auto& gradient = engines->gradient(c.shape(0), weights.shape());
    if (c.wants(0)) {
      Tensor dx(DType::F32, c.shape(0));
      gradient.by_input(dy, weights, dx);
      c.give(0, dx, kLast);
    }
    if (c.wants(1)) {
      Tensor dw(DType::F32, weights.shape());
      gradient.by_weights(c.in(0, kLast), dy, dw);
      c.give(1, dw);
    }
    if (c.wants(2)) c.give(2, sum_channels(dy));
  };
}

/// A transposed convolution is the gradient by the input of one that goes from y to x.
GradientFunction transposed(const KernelSpec& spec) {
  return [engines = std::make_shared<Engines>(spec)](GradientContext& c) {
    const Tensor dy = c.dy(0, kLast), weights = c.in(1);
    if (c.wants(0)) {
      Tensor dx(DType::F32, c.shape(0));
      engines->forward(c.shape(0), weights.shape()).run(dy, weights, false, nullptr, dx);
      c.give(0, dx, kLast);
    }
    if (c.wants(1)) {
      Tensor dw(DType::F32, weights.shape());
      engines->gradient(c.shape(0), weights.shape()).by_weights(dy, c.in(0, kLast), dw);
      c.give(1, dw);
    }
    if (c.wants(2)) c.give(2, sum_channels(dy));
  };
}

}  // namespace

std::vector<GradientDef> gradient_convolution() { return {{"Conv", convolution}, {"ConvTranspose", transposed}}; }

}  // namespace infopt
