#include "lib/runtime/fusions/code_convolution.h"

#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/runtime/layout.h"

namespace infopt {

CodeConvolution::CodeConvolution(const Node& node, std::vector<int64_t> pads, Tensor weights, std::vector<int32_t> zeros)
    : window_(WindowAttributes::of(node)),
      pads_(std::move(pads)),
      groups_(node.i("group", 1)),
      weights_(std::move(weights)),
      zeros_(std::move(zeros)) {}

CodeConvolution::Ready CodeConvolution::ready(const Tensor& x) const {
  if (x.rank() != weights_.rank() || x.dim(1) != weights_.dim(1) * groups_)
    throw Error(ErrorKind::Malformed, "an input of " + to_string(x.shape()) + " doesn't fit weights of " + to_string(weights_.shape()) +
                                          " in " + std::to_string(groups_) + " groups");
  const Window w = window_of({x.shape().begin() + 2, x.shape().end()});
  Shape shape{x.dim(0), weights_.dim(0)};
  shape.insert(shape.end(), w.out.begin(), w.out.end());
  return {&engine_for(w, x.dtype()), std::move(shape)};
}

void CodeConvolution::run(const Ready& ready, const Tensor& x, int32_t zero, const cpu::Int8Epilogue& epilogue, const Tensor* residual,
                          Tensor& y) {
  if (y.size() == 0) return;
  Tensor as_stored = epilogue.output == y.dtype() ? y : Tensor(epilogue.output, ready.shape, std::make_shared<Tensor>(y), y.raw());
  share_work(ready.engine->tasks(x.shape()), 1,
             [&](int64_t begin, int64_t end) { ready.engine->run(x, zero, epilogue, residual, as_stored, begin, end); });
}

Window CodeConvolution::window_of(Shape spatial) const {
  const Shape kernel(weights_.shape().begin() + 2, weights_.shape().end());
  const size_t n = spatial.size();
  if (pads_.empty()) return resolve_window(window_, spatial, kernel);
  for (size_t i = 0; i < n; ++i) spatial[i] += pads_[i] + pads_[n + i];
  Window w = resolve_window(window_, spatial, kernel);
  for (size_t i = 0; i < n; ++i) w.pads_begin[i] += pads_[i], w.pads_end[i] += pads_[n + i];
  return w;
}

const cpu::Int8Convolution& CodeConvolution::engine_for(const Window& w, DType codes) const {
  std::vector<int64_t> key{static_cast<int64_t>(codes)};
  key.insert(key.end(), w.pads_begin.begin(), w.pads_begin.end());
  key.insert(key.end(), w.pads_end.begin(), w.pads_end.end());
  std::lock_guard lock(mutex_);
  for (const auto& [pads, engine] : engines_)
    if (pads == key) return *engine;
  const cpu::ConvGeometry g{w.strides, w.dilations, w.pads_begin, w.pads_end, groups_};
  engines_.emplace_back(std::move(key),
                        std::make_unique<cpu::Int8Convolution>(g, weights_, codes, zeros_.empty() ? nullptr : zeros_.data()));
  weights_.release_pages();
  return *engines_.back().second;
}

Tensor channels_last(KernelContext& context, size_t i) {
  Layout layout;
  const Tensor& t = context.in_any(i, layout);
  return t.rank() < 3 ? t : convert_layout(t, layout, Layout::ChannelsLast);
}

}  // namespace infopt
