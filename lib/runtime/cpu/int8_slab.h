// The part of a channels-last 8-bit image that some lines of a convolution's output read, with its padding.
#pragma once
#include <array>
#include <cstdint>

namespace infopt::cpu {

using Int8Axes = std::array<int64_t, 3>;  ///< depth, height, width; 1-D and 2-D convolutions have 1 in front

struct Int8Window {
  Int8Axes kernel{1, 1, 1}, strides{1, 1, 1}, dilations{1, 1, 1}, pads_begin{}, pads_end{};
  int64_t channels = 1;
  int32_t zero = 0;   ///< of the activations, as uint8
  uint8_t flip = 0;   ///< 0x80 for int8 activations
  int64_t slack = 0;  ///< bytes that may be read past the last pixel; where it isn't 0 the image itself won't do
  bool pads() const;
};

struct Int8Extent {
  int64_t images = 1;
  Int8Axes in{1, 1, 1}, out{1, 1, 1};
};

/// Pixel (plane, line, column) of the padded image lies at data + plane·plane_stride + line·line_stride + column·channels, counted from
/// the first that the output's lines read.
struct Int8Slab {
  const uint8_t* data;
  int64_t line_stride, plane_stride;
};

/// For lines [first, last) of output plane `plane`. The image itself where nothing needs padding or flipping, else a copy in this thread's
/// memory (Int8Slot::Rows).
Int8Slab int8_slab(const Int8Window& window, const Int8Extent& extent, const uint8_t* image, int64_t plane, int64_t first, int64_t last);

/// Bytes of a slab of so many lines of output.
int64_t int8_slab_bytes(const Int8Window& window, const Int8Extent& extent, int64_t lines);

}  // namespace infopt::cpu
