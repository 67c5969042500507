// The door to oneDNN: float32 convolutions, deconvolutions and products, on the run's threads (lib/base/share.h); gradients in
// dnnl_gradient.h. Knows 2.6 and 3.x. Depthwise convolutions are our own where float_depthwise.h takes them.
#pragma once
#include <memory>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/ops/op.h"
#include "lib/runtime/cpu/conv_geometry.h"

namespace infopt::cpu {

/// One convolution node. Primitives and packed weights are made at the first run of a shape and kept. Thread-safe.
class Convolution {
 public:
  /// `accumulate`: run() adds to what dst holds, before the activation.
  explicit Convolution(ConvGeometry geometry, bool accumulate = false);
  ~Convolution();
  /// src and dst lie channels last. Weights as ONNX has them: (M, C/groups, k…), transposed (C, M/groups, k…).
  /// `packable` says that the weights are the same in every run. bias may be null.
  void run(const Tensor& src, const Tensor& weights, bool packable, const Tensor* bias, Tensor& dst) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// While it lives, convolutions that this thread runs make no primitives and give out zeros: for a run that only asks how large its tensors are.
class ShapesOnly {
 public:
  ShapesOnly();
  ~ShapesOnly();
  bool skipped() const;  ///< whether there were any
  ShapesOnly(const ShapesOnly&) = delete;
  ShapesOnly& operator=(const ShapesOnly&) = delete;
};

/// One product node: dst = src × weights, with NumPy's rules for the leading axes (each equal or 1), all of one rank.
class Product {
 public:
  explicit Product(PostActivation post = {});
  ~Product();
  /// transpose_*: the last two axes of the tensor lie swapped. bias is null or of shape (1,…,1,N) or (1,…,M,N)-broadcastable.
  void run(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, bool b_packable, const Tensor* bias, Tensor& dst) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace infopt::cpu
