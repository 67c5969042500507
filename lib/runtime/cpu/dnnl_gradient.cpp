#include "lib/runtime/cpu/dnnl_gradient.h"

#include <map>
#include <mutex>
#include <string_view>
#include <tuple>

#include "lib/runtime/cpu/depthwise_gradient.h"
#include "lib/runtime/cpu/dnnl_common.h"
#include "lib/runtime/cpu/unrolled_gradient.h"

namespace infopt::cpu {
namespace {

/// One gradient's primitive, and the form in which it takes or gives the weights.
struct Compiled {
  dnnl::primitive primitive;
  memory::desc x, weights, y, scratchpad, user_weights;
  bool reference = false;  ///< oneDNN has nothing fast: a hundred times a product's time
};

#if INFOPT_DNNL3
using ByInput = dnnl::convolution_backward_data::primitive_desc;
using ByWeights = dnnl::convolution_backward_weights::primitive_desc;
#endif

}  // namespace

struct ConvolutionGradient::Impl {
  ConvGeometry geometry;
  std::mutex mutex;
  std::map<std::tuple<Shape, Shape, bool, int>, std::shared_ptr<Compiled>> compiled;  ///< by the shapes of x and y, which gradient, threads

  std::shared_ptr<Compiled> compile(const Shape& x, const Tensor& weights, const Shape& y, bool by_weights);
};

std::shared_ptr<Compiled> ConvolutionGradient::Impl::compile(const Shape& x_shape, const Tensor& weights, const Shape& y_shape, bool by_weights) {
  std::lock_guard lock(mutex);
  auto& entry = compiled[{x_shape, y_shape, by_weights, run_threads()}];
  if (entry) return entry;
  auto c = std::make_shared<Compiled>();
  const size_t rank = x_shape.size();
  const memory::desc x(dims_of(x_shape), memory::data_type::f32, channels_last(rank)), y(dims_of(y_shape), memory::data_type::f32, channels_last(rank));
  c->user_weights = weight_desc(weights.shape(), geometry);
  const memory::desc w = any_of(c->user_weights);
  memory::dims dilations;
  for (int64_t v : geometry.dilations) dilations.push_back(v - 1);
  const memory::dims strides(geometry.strides.begin(), geometry.strides.end());
  const memory::dims low(geometry.pads_begin.begin(), geometry.pads_begin.end()), high(geometry.pads_end.begin(), geometry.pads_end.end());
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto direct = dnnl::algorithm::convolution_direct;
#if INFOPT_DNNL3
  const dnnl::convolution_forward::primitive_desc forward(engine(), dnnl::prop_kind::forward_training, direct, x, w, y, strides, dilations, low, high, attr);
#else
  const dnnl::convolution_forward::desc forward_desc(dnnl::prop_kind::forward_training, direct, x, w, y, strides, dilations, low, high);
  const dnnl::convolution_forward::primitive_desc forward(forward_desc, attr, engine());
#endif
  const auto keep = [&](const auto& pd, auto primitive, const memory::desc& its_weights) {
    c->primitive = primitive;
    c->weights = its_weights;
    c->scratchpad = pd.scratchpad_desc();
    c->reference = std::string_view(pd.impl_info_str()).starts_with("ref");
  };
  c->x = x;
  c->y = y;
  if (by_weights) {
#if INFOPT_DNNL3
    const ByWeights pd(engine(), direct, x, w, y, strides, dilations, low, high, forward, attr);
#else
    const dnnl::convolution_backward_weights::desc desc(direct, x, w, y, strides, dilations, low, high);
    const dnnl::convolution_backward_weights::primitive_desc pd(desc, attr, engine(), forward);
#endif
    keep(pd, dnnl::convolution_backward_weights(pd), pd.diff_weights_desc());
  } else {
#if INFOPT_DNNL3
    const ByInput pd(engine(), direct, x, w, y, strides, dilations, low, high, forward, attr);
#else
    const dnnl::convolution_backward_data::desc desc(direct, x, w, y, strides, dilations, low, high);
    const dnnl::convolution_backward_data::primitive_desc pd(desc, attr, engine(), forward);
#endif
    keep(pd, dnnl::convolution_backward_data(pd), pd.weights_desc());
  }
  entry = std::move(c);
  return entry;
}

ConvolutionGradient::ConvolutionGradient(ConvGeometry geometry) : impl_(std::make_unique<Impl>()) { impl_->geometry = std::move(geometry); }
ConvolutionGradient::~ConvolutionGradient() = default;

namespace {

Tensor bytes_for(const memory::desc& desc) { return Tensor(DType::U8, {static_cast<int64_t>(desc.get_size())}); }

void reorder(const memory::desc& from, const Tensor& given, const memory::desc& to, Tensor& out) {
  memory a = view(from, given.raw()), b = view(to, out.raw());
  dnnl::reorder(a, b).execute(stream(), a, b);
  stream().wait();
}

}  // namespace

void ConvolutionGradient::by_input(const Tensor& dy, const Tensor& weights, Tensor& dx) const {
  if (dx.size() == 0) return;
  translate([&] {
    stream();
    const auto c = impl_->compile(dx.shape(), weights, dy.shape(), false);
    if (c->reference) return unrolled_by_input(impl_->geometry, dy, weights, dx);
    Tensor w = weights;
    if (c->weights != c->user_weights) {
      w = bytes_for(c->weights);
      reorder(c->user_weights, weights, c->weights, w);
    }
    const Tensor scratch = bytes_for(c->scratchpad);
    c->primitive.execute(stream(), {{DNNL_ARG_DIFF_DST, view(c->y, dy.raw())}, {DNNL_ARG_WEIGHTS, view(c->weights, w.raw())}, {DNNL_ARG_DIFF_SRC, view(c->x, dx.raw())}, {DNNL_ARG_SCRATCHPAD, view(c->scratchpad, scratch.raw())}});
    stream().wait();
  });
}

void ConvolutionGradient::by_weights(const Tensor& x, const Tensor& dy, Tensor& dw) const {
  if (dw.size() == 0) return;
  const bool large = dw.size() / (dw.dim(0) * dw.dim(1)) > 9;  // where oneDNN is slow
  if (large && is_depthwise(impl_->geometry, x.shape(), dw.shape())) return depthwise_by_weights(impl_->geometry, x, dy, dw);
  translate([&] {
    stream();
    const auto c = impl_->compile(x.shape(), dw, dy.shape(), true);
    if (c->reference) return unrolled_by_weights(impl_->geometry, x, dy, dw);
    const bool same = c->weights == c->user_weights;
    Tensor made = same ? dw : bytes_for(c->weights);
    const Tensor scratch = bytes_for(c->scratchpad);
    c->primitive.execute(stream(), {{DNNL_ARG_SRC, view(c->x, x.raw())}, {DNNL_ARG_DIFF_DST, view(c->y, dy.raw())}, {DNNL_ARG_DIFF_WEIGHTS, view(c->weights, made.raw())}, {DNNL_ARG_SCRATCHPAD, view(c->scratchpad, scratch.raw())}});
    stream().wait();
    if (!same) reorder(c->weights, made, c->user_weights, dw);
  });
}

}  // namespace infopt::cpu
