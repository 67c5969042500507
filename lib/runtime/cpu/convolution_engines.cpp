#include "lib/runtime/cpu/convolution_engines.h"

namespace infopt::cpu {

const Convolution& ConvolutionEngines::get(const Window& w, int64_t groups, bool transposed, const PostActivation& post, bool accumulate) const {
  std::lock_guard lock(mutex_);
  for (const Engine& e : engines_)
    if (e.pads_begin == w.pads_begin && e.pads_end == w.pads_end && e.kind == post.kind && e.accumulate == accumulate) return *e.convolution;
  ConvGeometry g{w.strides, w.dilations, w.pads_begin, w.pads_end, groups, transposed, post};
  engines_.push_back({w.pads_begin, w.pads_end, post.kind, accumulate, std::make_unique<Convolution>(std::move(g), accumulate)});
  return *engines_.back().convolution;
}

}  // namespace infopt::cpu
