// Float convolutions of channels-last tensors: as matrix products, depthwise ones by a kernel of their own.
#pragma once
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/finish.h"
#include "lib/runtime/window.h"

namespace infopt::cuda {

class SparseWeights;

/// A convolution's weights in the order in which its kernels read them.
struct ConvWeights {
  Tensor packed = {};  ///< product: [m, columns]; depthwise: [positions, m]
  Shape shape = {};    ///< as ONNX has them: (m, channels of a group, kernel…)
  int64_t groups = 1;
  bool depthwise = false;  ///< a group has one channel
  int64_t columns = 0;     ///< elements of a row: positions × channels of a group, filled up with zeros to whole packs of 16 bytes
};
/// Of host memory. F32, F16 or BF16.
ConvWeights pack_conv_weights(const Tensor& weights, int64_t groups);
/// The same of weights in the device's memory.
ConvWeights pack_conv_weights(CudaRun& run, const Tensor& weights, int64_t groups);

/// y = finish(x * weights): all in the device's memory and of one type; x (images, channels, spatial…) and y (images, m, w.out…) lie channels
/// last. `packed` are the weights' elements there. Pads may be larger than the windows, and negative. `sparse`: the same weights, of one group,
/// as those of a product that may leave zeros out; null: none.
void convolve(CudaRun& run, const Tensor& x, const ConvWeights& weights, const void* packed, const Window& w, Tensor& y, const Finish& finish, const SparseWeights* sparse = nullptr);

/// A transposed convolution's weights (channels, m of a group, kernel…) as (channels, kernel…, m of a group).
Tensor pack_transposed_weights(const Tensor& weights);
Tensor pack_transposed_weights(CudaRun& run, const Tensor& weights);
/// y(o) = finish(Σ x(i)·w(k) over o = i·stride + k·dilation − pad): pads_begin of w count, and out; the others don't.
void convolve_transposed(CudaRun& run, const Tensor& x, const Shape& weights, const void* packed, int64_t groups, const Window& w, Tensor& y, const Finish& finish);

}  // namespace infopt::cuda
