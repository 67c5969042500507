// Depthwise convolutions: one channel in, one out. The bytes of four rows are put side by side for each channel, so that one
// instruction multiplies four taps.
#pragma once
#include <memory>
#include <vector>

#include "lib/runtime/cpu/int8_kernels.h"
#include "lib/runtime/cpu/int8_slab.h"

namespace infopt::cpu {

class Int8Depthwise {
 public:
  /// weights (C, 1, kh, kw), raised by 128 where `is_unsigned`; zeros: one a channel, null: 0. The window's depth must be 1; its slack is
  /// set to what this needs.
  Int8Depthwise(const uint8_t* weights, bool is_unsigned, const int32_t* zeros, Int8Window& window);

  struct Prepared {
    const int32_t* start;
    const float* scale;
  };
  /// In this thread's memory (Int8Slot::Columns).
  Prepared prepare(const Int8Epilogue& epilogue, int32_t zero) const;
  /// One line of `pixels`; `slab` is its first line of input. dst and residual point to the line's first pixel.
  void line(const Int8Window& window, const Int8Slab& slab, int64_t pixels, const Prepared& prepared, const Int8Finish& finish, void* dst,
            const void* residual) const;
  /// 3×3 windows, dense, with steps of 1 or 2, where the instruction set can do them without a slab.
  bool slides(const Int8Window& window) const;
  /// As `line`, from the image itself: `y` is the line of output, before the strides.
  void sliding_line(const Int8Window& window, const Int8Extent& extent, const uint8_t* image, int64_t y, const Prepared& prepared,
                    const Int8Finish& finish, void* dst, const void* residual) const;

 private:
  /// Four sources: lines and, counted in columns, places within them.
  struct Quad {
    int64_t lines[4], columns[4];
  };
  struct Tap {
    size_t quad;
    int64_t column;    ///< where the quad is read
    int64_t place[4];  ///< the weight of each of the four, -1: none
  };
  struct Block {
    int64_t first, channels, vectors, at;  ///< at: first byte of its weights
    int64_t parts;                         ///< what a tap is multiplied with is the sum of so many weights
  };
  void plan_taps(Int8Window& window);
  void pack(const std::vector<std::vector<int8_t>>& parts, int64_t kernel);
  void pack_part(const std::vector<int8_t>& part, int64_t kernel, const Block& block, int8_t* to);
  Int8Panel panel_of(size_t block, const Prepared& prepared) const;
  void block_line(const Int8Window& window, const Int8Slab& slab, int64_t pixels, const Int8Panel& panel, int64_t parts,
                  const Int8Finish& finish, void* dst, const void* residual) const;

  int64_t channels_;
  std::vector<Quad> quads_;
  std::vector<Tap> taps_;
  std::vector<Block> blocks_;
  std::vector<int32_t> sums_;  ///< of each channel's weights
  std::shared_ptr<void> packed_;
};

}  // namespace infopt::cpu
