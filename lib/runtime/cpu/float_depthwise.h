// Float32 depthwise convolutions, channels last: a vector holds channels, and several pixels of a row are made at once, so that each input
// read serves all taps of the row that see it. The instruction set is that of float_tiles.h; those with fused multiply-add give the same bits.
#pragma once
#include <cstdint>

#include "lib/base/tensor.h"
#include "lib/runtime/cpu/conv_geometry.h"

namespace infopt::cpu {

/// One image of a depthwise convolution.
struct DepthwiseImage {
  const float* x = nullptr;  ///< height × width × channels
  int64_t height = 0, width = 0, channels = 0;
  const float* weights = nullptr;  ///< by 16 channels: taps × 16, the rest zeros
  const float* bias = nullptr;     ///< by channel, or null
  int64_t kernel_height = 0, kernel_width = 0, stride_y = 1, stride_x = 1, pad_y = 0, pad_x = 0;
  bool accumulate = false;
  bool bounded = false;  ///< between low and high
  float low = 0, high = 0;
  float* y = nullptr;  ///< rows of out_width × channels
  int64_t out_width = 0;
};

inline constexpr int64_t kDepthwiseBlock = 16;  ///< channels whose weights lie together

/// Writes the pixels [first, first + count) of an output row.
using DepthwiseSegment = void (*)(const DepthwiseImage& image, int64_t row, int64_t first, int64_t count);

// Of the single instruction sets.
void portable_depthwise(const DepthwiseImage& image, int64_t row, int64_t first, int64_t count);
void avx2_depthwise(const DepthwiseImage& image, int64_t row, int64_t first, int64_t count);
void avx512_depthwise(const DepthwiseImage& image, int64_t row, int64_t first, int64_t count);

/// Whether depthwise() takes it: one filter for each channel, dense, along one or two axes. `weights` is the weights' shape.
bool is_plain_depthwise(const ConvGeometry& geometry, const Shape& weights);

/// Weights (C, 1, k…) as DepthwiseImage wants them.
Tensor pack_depthwise(const Tensor& weights);

/// dst = post(conv(src) + bias), or post(dst + conv(src) + bias), both channels last; on the run's threads, with the same bits for any number of them.
void depthwise(const ConvGeometry& geometry, const Tensor& src, const Shape& weights, const Tensor& packed, const Tensor* bias, bool accumulate, Tensor& dst);

}  // namespace infopt::cpu
