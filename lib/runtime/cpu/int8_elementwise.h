// Elementwise kernels and poolings of 8-bit tensors. Element types are U8 or I8; tensors lie channels last where they have channels.
// Every kernel gives the same bits on every instruction set and for every cut of its elements.
#pragma once
#include <cstdint>
#include <limits>

#include "lib/base/dtype.h"
#include "lib/runtime/cpu/int8_slab.h"

namespace infopt::cpu {

/// y[i] = table[uint8(x[i])], 256 entries. y may be x.
void int8_lookup(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table);

/// How two operands make q = saturate(round_half_even(min(max(v, low), high)) + zero).
struct Int8Binary {
  DType a_dtype = DType::U8, b_dtype = DType::U8, output = DType::U8;
  int32_t a_zero = 0, b_zero = 0, zero = 0;
  float a_ratio = 1, b_ratio = 1;  ///< the operand's scale over the output's; a product's a_ratio is sa·sb/sy, its b_ratio unused
  float low = -std::numeric_limits<float>::infinity(),
        high = std::numeric_limits<float>::infinity();  ///< in steps of y, relative to its zero
};
/// v = float(a − za)·ra + float(b − zb)·rb for n elements. b has b_count elements, repeated: n is a multiple of it (1: a scalar). y may be
/// a or b.
void int8_add(const Int8Binary& how, const void* a, const void* b, int64_t b_count, void* y, int64_t n);
/// v = (float(a − za)·float(b − zb))·ra.
void int8_multiply(const Int8Binary& how, const void* a, const void* b, int64_t b_count, void* y, int64_t n);

/// QuantizeLinear with one scale: q = saturate(round_half_even(x / scale) + zero). NaN becomes the least code.
void int8_quantize(const float* x, void* q, DType dtype, int64_t n, float scale, int32_t zero);
/// DequantizeLinear with one scale: float(q − zero)·scale.
void int8_dequantize(const void* q, DType dtype, float* x, int64_t n, float scale, int32_t zero);

/// How a sum of codes becomes a code: q = saturate(round_half_even(float(sum − count·za)·ratio) + zero).
struct Int8Mean {
  DType input = DType::U8, output = DType::U8;
  int32_t input_zero = 0, zero = 0;
  float ratio = 1;
};
/// One image [pixels, channels] to [channels]; ratio is sx/(sy·pixels). Fewer than 2^23 pixels.
void int8_global_average(const Int8Mean& how, const void* image, int64_t pixels, int64_t channels, void* y);

/// Output lines [first, last), counted through all images and planes. Of the window, kernel, strides, dilations, pads and channels count.
/// Padding is never the greatest; a window of padding alone gives the least code.
void int8_max_pool(const Int8Window& window, const Int8Extent& extent, DType dtype, const void* src, void* dst, int64_t first,
                   int64_t last);
/// As int8_max_pool, with `how.ratio` = sx/sy divided, as a float, by the pixels of the window: those inside of the image and its pads
/// where include_pad, else those inside of the image. Padding adds nothing.
void int8_average_pool(const Int8Window& window, const Int8Extent& extent, const Int8Mean& how, bool include_pad, const void* src,
                       void* dst, int64_t first, int64_t last);

}  // namespace infopt::cpu
