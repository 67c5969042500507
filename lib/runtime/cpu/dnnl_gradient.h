// Gradients of float32 convolutions through oneDNN.
#pragma once
#include <memory>

#include "lib/base/tensor.h"
#include "lib/runtime/cpu/conv_geometry.h"

namespace infopt::cpu {

/// Of one convolution that isn't transposed. Activations and their gradients lie channels last, weights as ONNX has them, (M, C/groups, k…).
/// Primitives are made at the first run of a shape and kept. Thread-safe.
class ConvolutionGradient {
 public:
  explicit ConvolutionGradient(ConvGeometry geometry);
  ~ConvolutionGradient();
  void by_input(const Tensor& dy, const Tensor& weights, Tensor& dx) const;
  void by_weights(const Tensor& x, const Tensor& dy, Tensor& dw) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace infopt::cpu
