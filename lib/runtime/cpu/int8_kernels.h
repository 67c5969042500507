// The seam between integer products and convolutions and what one instruction set does for them. Every implementation gives the same bits.
// Activations are uint8 here (int8 ones come with their sign bit flipped), weights int8.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "lib/runtime/cpu/int8_epilogue.h"

namespace infopt::cpu {

inline constexpr int64_t kInt8Lanes = 16;  ///< int32 sums in one vector
inline constexpr int64_t kInt8Panel = 64;  ///< columns in a full panel, four vectors

/// An epilogue made ready: the range of the 8-bit output is in low and high (low2 and high2) already.
struct Int8Finish {
  const Int8Epilogue* e = nullptr;
  float low = 0, high = 0, low2 = 0, high2 = 0;
  bool bytes = false;  ///< an 8-bit output
  int32_t flip = 0;    ///< 0x80 where the output is I8: bytes are computed as q + flip and then flipped
  explicit Int8Finish(const Int8Epilogue& epilogue);
};

/// Up to 64 neighbouring columns. Arrays "in lane order" have 16·vectors entries, those past `columns` 0.
struct Int8Panel {
  const int8_t* weights = nullptr;  ///< [step][16·vectors][4], 64-byte aligned; padded with 0
  int64_t vectors = 4, columns = 64;
  int64_t first = 0;                     ///< its first column in the epilogue's arrays
  const int32_t* start = nullptr;        ///< bias and everything that the activations' zero contributes; lane order
  const float* scale = nullptr;          ///< lane order
  const int32_t* weight_zero = nullptr;  ///< lane order; null: all are 0
  bool shuffled = false;                 ///< the lanes hold columns in int8_lane_order rather than their natural one
};

/// Rows of a product: sums[r][n] = start[n] + Σ over taps, k of (rows[r] + shift)[taps[t] + k]·weights. Reads 4·steps bytes a tap.
struct Int8Tile {
  const uint8_t* const* rows = nullptr;
  int64_t count = 0, shift = 0;
  const int64_t* taps = nullptr;
  int64_t tap_count = 1, steps = 0;
  const int32_t* row_sums = nullptr;  ///< Σ of a row's activations; needed where weight_zero isn't null
  void* dst = nullptr;                ///< row 0, the panel's first column; rows are `stride` elements apart
  const void* residual = nullptr;     ///< likewise
  int64_t stride = 0;
};

/// Pixels of one line of a depthwise convolution: sums[x][n] = start[n] + Σ over taps of the four products of src[x·pixel_stride + taps[t]]
/// (a vector [16·vectors][4]) with weights[t].
struct Int8DepthwiseLine {
  const uint8_t* src = nullptr;  ///< 64-byte aligned
  int64_t count = 0, pixel_stride = 0;
  const int64_t* taps = nullptr;
  int64_t tap_count = 0;
  void* dst = nullptr;
  const void* residual = nullptr;
  int64_t stride = 0;
};

/// Bytes of four sources, side by side for each channel: dst[x][lane][t] = sources[t][x·stride + channel(lane)].
struct Int8Interleave {
  const uint8_t* sources[4] = {};
  int64_t count = 0, stride = 0;
  int64_t vectors = 4, channels = 64;  ///< no byte past `channels` is read
  uint8_t* dst = nullptr;
  int64_t dst_stride = 0;  ///< from pixel to pixel, in bytes
};

/// A line of a depthwise convolution with a dense 3×3 window, straight from the image. Weights are as Int8DepthwiseLine's with one tap for
/// each column of the window, its three lines and a 0, and that `parts` times: what a column is multiplied with is their sum.
struct Int8SlidingLine {
  const uint8_t* sources[3] = {};  ///< column 0 of each line, the panel's first channel
  int64_t strides[3] = {};         ///< from column to column; 0 where a line is outside of the image
  int64_t width = 0, first = 0;    ///< columns of the image; the column, maybe negative, where the first window begins
  int64_t count = 0, step = 1;     ///< pixels, and columns from one to the next: 1 or 2
  int64_t parts = 1;               ///< 1 or 2
  uint8_t flip = 0, outside = 0;   ///< what bytes are flipped with; what stands, after that, outside of the image
  void* dst = nullptr;
  const void* residual = nullptr;
  int64_t stride = 0;
};

/// A code's value is (byte ^ flip) − zero.
struct Int8PairCodes {
  int32_t flip, zero;
};
/// Cuts to low and high, which keep to the range of the output, rounds half to even and adds zero.
struct Int8PairOutput {
  float low, high;
  int32_t zero, flip;  ///< flip: 0x80 for I8
};
/// Two operands: their sum a·a_ratio + b·b_ratio or their product a·b·a_ratio.
struct Int8Pair {
  Int8PairCodes a, b;
  float a_ratio, b_ratio;
  Int8PairOutput y;
};

enum class Int8Isa { Portable, Avx2, Avx512Vnni };

struct Int8Kernels {
  void (*product)(const Int8Tile&, const Int8Panel&, const Int8Finish&);
  void (*depthwise)(const Int8DepthwiseLine&, const Int8Panel&, const Int8Finish&);
  void (*interleave)(const Int8Interleave&);
  void (*slide)(const Int8SlidingLine&, const Int8Panel&, const Int8Finish&);  ///< null: interleave and depthwise do it
  void (*pair)(const Int8Pair&, bool multiply, const uint8_t* a, const uint8_t* b, int64_t n,
               uint8_t* y);                                                       ///< null: loops; y may be a or b; ratios are below 1e4
  void (*lookup)(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table);  ///< y may be x
  /// sums[r] = Σ over taps, k < run_bytes ≤ 4·steps of (rows[r] + shift)[taps[t] + k].
  void (*sum_rows)(const Int8Tile&, int64_t run_bytes, int32_t* sums);
};

/// The best that this processor has, unless use_int8_isa chose another.
const Int8Kernels& int8_kernels();
bool has_int8_isa(Int8Isa isa);
/// For tests: all later calls, in every thread, use this instruction set, which the processor must have.
void use_int8_isa(Int8Isa isa);

/// The column that lane p of a shuffled panel of `vectors` (1, 2 or 4) vectors holds: what interleaving bytes within 128-bit lanes gives.
inline int64_t int8_lane_order(int64_t vectors, int64_t p) {
  const int64_t vector = p / 16, lane = p % 16 / 4, q = p % 4;
  return (lane * vectors + vector) * 4 + q;
}

/// The slow and general end of a row: `sums` of `n` ≤ 64 columns from `first` on, in natural order.
void finish_int8_row(const Int8Finish& finish, int64_t first, int64_t n, const int32_t* sums, const void* residual, void* dst);
/// finish_int8_row for sums as the panel's lanes hold them. `sums` is overwritten.
void finish_int8_lanes(const Int8Finish& finish, const Int8Panel& panel, int32_t row_sum, int32_t* sums, const void* residual, void* dst);

/// y[i] = x[i] ^ flip.
void flip_bytes(const uint8_t* x, uint8_t* y, int64_t n, uint8_t flip);
inline size_t int8_output_bytes(const Int8Epilogue& e) { return e.output == DType::U8 || e.output == DType::I8 ? 1 : 4; }
/// `elements` of the output's size (the residual's is the same) behind `first`; null where that is null.
template <class P>
P* int8_place(P* first, int64_t elements, const Int8Finish& finish) {
  using Byte = std::conditional_t<std::is_const_v<P>, const std::byte, std::byte>;
  return first ? static_cast<Byte*>(first) + elements * static_cast<int64_t>(int8_output_bytes(*finish.e)) : nullptr;
}
/// At least `bytes` of this thread's memory, 64-byte aligned, kept between calls; each slot is a memory of its own.
enum class Int8Slot { Rows, Pointers, Columns, Interleaved, Sums, Count };
void* int8_scratch(Int8Slot slot, size_t bytes);

// Of the single instruction sets.
const Int8Kernels& int8_portable_kernels();
const Int8Kernels& int8_avx2_kernels();
const Int8Kernels& int8_avx512_kernels();

}  // namespace infopt::cpu
