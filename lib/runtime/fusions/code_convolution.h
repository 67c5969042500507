// A convolution node of codes with constant weights: what its integer kernels share.
#pragma once
#include <mutex>

#include "lib/ops/op.h"
#include "lib/runtime/cpu/int8_conv.h"
#include "lib/runtime/window.h"

namespace infopt {

/// Packs its weights once for each geometry. Thread-safe.
class CodeConvolution {
 public:
  /// `node` has Conv's attributes. weights (M, C/group, k…); zeros: one a channel, or none. `pads`: what a Pad before it adds
  /// (lib/runtime/fusions/pads.h).
  CodeConvolution(const Node& node, std::vector<int64_t> pads, Tensor weights, std::vector<int32_t> zeros);

  struct Ready {
    const cpu::Int8Convolution* engine;
    Shape shape;  ///< of the result
  };
  /// Throws Error(Malformed) where x doesn't fit.
  Ready ready(const Tensor& x) const;
  /// x and y lie channels last; y is of ready()'s shape and the epilogue's type, or of one with as many bytes.
  static void run(const Ready& ready, const Tensor& x, int32_t zero, const cpu::Int8Epilogue& epilogue, const Tensor* residual, Tensor& y);

  int64_t groups() const { return groups_; }
  int64_t rank() const { return weights_.rank(); }

 private:
  Window window_of(Shape spatial) const;
  const cpu::Int8Convolution& engine_for(const Window& w, DType codes) const;

  WindowAttributes window_;
  std::vector<int64_t> pads_;
  int64_t groups_;
  Tensor weights_;
  std::vector<int32_t> zeros_;
  mutable std::mutex mutex_;
  mutable std::vector<std::pair<std::vector<int64_t>, std::unique_ptr<cpu::Int8Convolution>>> engines_;
};

/// Input i, channels last where it has spatial axes.
Tensor channels_last(KernelContext& context, size_t i);

}  // namespace infopt
