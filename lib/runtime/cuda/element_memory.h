// Elements of any type, read into and written from the types that kernels compute in: float, double, int64_t, uint64_t.
#pragma once
#include <cmath>
#include <type_traits>

#include "lib/runtime/cuda/portable.h"

#if defined(__CUDACC__)
#define INFOPT_UNROLL _Pragma("unroll")
#define INFOPT_ROLL _Pragma("unroll 1")
#else
#define INFOPT_UNROLL
#define INFOPT_ROLL
#endif

namespace infopt::cuda {

/// Four elements side by side, read and written at once where they lie on a multiple of their size.
template <class T> struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) Four { T v[4]; };
/// Eight of 16 bits.
template <class T> struct alignas(16) Eight { T v[8]; };

/// The largest and least values of integers, where std::numeric_limits would be a function of the host.
template <class T> INFOPT_DEVICE constexpr T most_of() {
  if constexpr (std::is_signed_v<T>) return static_cast<T>(~(std::make_unsigned_t<T>(1) << (8 * sizeof(T) - 1)));
  else return static_cast<T>(~T(0));
}
template <class T> INFOPT_DEVICE constexpr T least_of() { return static_cast<T>(~most_of<T>()); }

template <class T> inline constexpr bool kSmallFloat = std::is_same_v<T, half> || std::is_same_v<T, bfloat16>;

template <class W, class T> INFOPT_DEVICE W widen(T v) {
  if constexpr (kSmallFloat<T>) return static_cast<W>(load_float(v));
  else return static_cast<W>(v);
}

/// As ONNX's Cast: floats are truncated to integers, saturate there, and NaN is 0.
template <class T, class W> INFOPT_DEVICE T narrow(W v) {
  if constexpr (std::is_same_v<T, bool>) {
    return v != W(0);
  } else if constexpr (kSmallFloat<T>) {
    T to;
    store_float(to, static_cast<float>(v));
    return to;
  } else if constexpr (std::is_floating_point_v<W> && !std::is_floating_point_v<T>) {
    if (v != v) return T(0);
    if (v >= static_cast<W>(most_of<T>())) return most_of<T>();
    if (v <= static_cast<W>(least_of<T>())) return least_of<T>();
    return static_cast<T>(v);
  } else {
    return static_cast<T>(v);
  }
}

// Types that are bits: 8-bit floats and what is packed.
struct SmallFormat {
  int exponent_bits, mantissa_bits, bias;
  bool infinities, nan_all_ones, unsigned_zero;
};
INFOPT_DEVICE SmallFormat small_format(DType t) {
  switch (t) {
    case DType::F8E4M3FN: return {4, 3, 7, false, true, false};
    case DType::F8E4M3FNUZ: return {4, 3, 8, false, false, true};
    case DType::F8E5M2: return {5, 2, 15, true, false, false};
    case DType::F8E5M2FNUZ: return {5, 2, 16, false, false, true};
    default: return {2, 1, 1, false, false, false};  // F4E2M1
  }
}

INFOPT_DEVICE float decode_small(DType t, int code) {
  const float nan = __int_as_float(0x7fc00000), infinity = __int_as_float(0x7f800000);
  if (t == DType::F8E8M0) return code == 0xff ? nan : code == 0 ? __int_as_float(0x00400000) : __int_as_float(code << 23);
  const SmallFormat f = small_format(t);
  const int sign_bit = 1 << (f.exponent_bits + f.mantissa_bits), magnitude = code & (sign_bit - 1);
  const int exponent = magnitude >> f.mantissa_bits, mantissa = magnitude & ((1 << f.mantissa_bits) - 1);
  if ((f.unsigned_zero && code == sign_bit) || (f.nan_all_ones && magnitude == sign_bit - 1)) return nan;
  float v = ldexpf(static_cast<float>(exponent ? mantissa + (1 << f.mantissa_bits) : mantissa), (exponent ? exponent : 1) - f.bias - f.mantissa_bits);
  if (f.infinities && exponent == (1 << f.exponent_bits) - 1) v = mantissa ? nan : infinity;
  return (code & sign_bit) ? -v : v;
}

/// Round to nearest even. Past the largest value: that value, or where it doesn't saturate infinity or NaN, whichever the type has.
INFOPT_DEVICE int encode_small(DType t, float value, bool saturate) {
  const SmallFormat f = small_format(t);
  const int sign_bit = 1 << (f.exponent_bits + f.mantissa_bits), sign = __float_as_int(value) < 0 ? sign_bit : 0;
  const int nan = f.unsigned_zero ? sign_bit : f.nan_all_ones || f.infinities ? sign_bit - 1 : 0;
  if (value != value) return nan;
  const int top = sign_bit - 1 - (f.nan_all_ones ? 1 : 0) - (f.infinities ? 1 << f.mantissa_bits : 0);
  const float magnitude = fabsf(value);
  const int raw = (__float_as_int(magnitude) >> 23) - 127, exponent = raw < 1 - f.bias ? 1 - f.bias : raw;
  int code = top + 1;
  if (magnitude < 1e6f) code = ((exponent + f.bias - 1) << f.mantissa_bits) + __float2int_rn(ldexpf(magnitude, f.mantissa_bits - exponent));
  if (code > top) {
    if (!saturate) return f.unsigned_zero ? nan : f.infinities ? sign | (top + 1) : sign | (sign_bit - 1);
    code = top;
  }
  return f.unsigned_zero && code == 0 ? 0 : code | sign;
}

/// Powers of two. rounding: 0 up, 1 down, 2 nearest.
INFOPT_DEVICE int encode_power(float value, int rounding, bool saturate) {
  if (value != value) return 0xff;
  const int bits = __float_as_int(value) & 0x7fffffff, mantissa = bits & 0x7fffff;
  if (bits >= 0x7f800000) return saturate ? 0xfe : 0xff;
  int exponent = bits >> 23;
  if (exponent == 0) {
    if (!saturate && mantissa < 0x400000) return 0xff;
    return (rounding == 0 ? mantissa > 0x400000 : rounding == 2 && mantissa >= 0x600000) ? 1 : 0;
  }
  if (rounding == 0 ? mantissa > 0 : rounding == 2 && mantissa >= 0x400000) ++exponent;
  return exponent > 254 ? (saturate ? 0xfe : 0xff) : exponent;
}

/// Bits of an element of a type packed below 8 bits, else 8.
INFOPT_DEVICE int packed_bits(DType t) {
  return t == DType::U4 || t == DType::I4 || t == DType::F4E2M1 ? 4 : t == DType::U2 || t == DType::I2 ? 2 : 8;
}

/// An element of one of those types.
template <class W> INFOPT_DEVICE W load_bits(DType t, const void* data, int64_t at) {
  const int bits = packed_bits(t);
  int code = static_cast<const uint8_t*>(data)[bits == 8 ? at : at * bits / 8];
  if (bits < 8) code = (code >> (static_cast<int>(at % (8 / bits)) * bits)) & ((1 << bits) - 1);
  if (t == DType::U4 || t == DType::U2) return static_cast<W>(code);
  if (t == DType::I4 || t == DType::I2) return static_cast<W>(code >= 1 << (bits - 1) ? code - (1 << bits) : code);
  return static_cast<W>(decode_small(t, code));
}
template <class W> INFOPT_DEVICE int bits_for(DType t, W v, bool saturate, int rounding) {
  if (t == DType::F8E8M0) return encode_power(static_cast<float>(v), rounding, saturate);
  if (packed_bits(t) < 8 && t != DType::F4E2M1) return static_cast<int>(narrow<int64_t>(v)) & ((1 << packed_bits(t)) - 1);
  return encode_small(t, static_cast<float>(v), saturate);
}

/// One element of any type but strings and complex numbers.
template <class W> INFOPT_DEVICE W load_one(DType t, const void* data, int64_t at) {
  switch (t) {
    case DType::F32: return widen<W>(static_cast<const float*>(data)[at]);
    case DType::F16: return widen<W>(static_cast<const half*>(data)[at]);
    case DType::BF16: return widen<W>(static_cast<const bfloat16*>(data)[at]);
    case DType::F64: return widen<W>(static_cast<const double*>(data)[at]);
    case DType::I64: return widen<W>(static_cast<const int64_t*>(data)[at]);
    case DType::I32: return widen<W>(static_cast<const int32_t*>(data)[at]);
    case DType::U8: return widen<W>(static_cast<const uint8_t*>(data)[at]);
    case DType::I8: return widen<W>(static_cast<const int8_t*>(data)[at]);
    case DType::Bool: return static_cast<W>(static_cast<const uint8_t*>(data)[at] != 0);
    case DType::U16: return widen<W>(static_cast<const uint16_t*>(data)[at]);
    case DType::I16: return widen<W>(static_cast<const int16_t*>(data)[at]);
    case DType::U32: return widen<W>(static_cast<const uint32_t*>(data)[at]);
    case DType::U64: return widen<W>(static_cast<const uint64_t*>(data)[at]);
    default: return load_bits<W>(t, data, at);
  }
}

template <class T, class W> INFOPT_DEVICE void load_four_as(const void* data, int64_t at, W (&to)[4]) {
  const Four<T> four = *reinterpret_cast<const Four<T>*>(static_cast<const T*>(data) + at);
  INFOPT_UNROLL for (int i = 0; i < 4; ++i) to[i] = widen<W>(four.v[i]);
}

/// Elements at, at + 1, at + 2 and at + 3, which lie on a multiple of the four's size.
template <class W> INFOPT_DEVICE void load_four(DType t, const void* data, int64_t at, W (&to)[4]) {
  switch (t) {
    case DType::F32: return load_four_as<float>(data, at, to);
    case DType::F16: return load_four_as<half>(data, at, to);
    case DType::BF16: return load_four_as<bfloat16>(data, at, to);
    case DType::F64: return load_four_as<double>(data, at, to);
    case DType::I64: return load_four_as<int64_t>(data, at, to);
    case DType::I32: return load_four_as<int32_t>(data, at, to);
    case DType::U8: case DType::Bool: return load_four_as<uint8_t>(data, at, to);  // a bool is 0 or 1
    case DType::I8: return load_four_as<int8_t>(data, at, to);
    case DType::U16: return load_four_as<uint16_t>(data, at, to);
    case DType::I16: return load_four_as<int16_t>(data, at, to);
    case DType::U32: return load_four_as<uint32_t>(data, at, to);
    case DType::U64: return load_four_as<uint64_t>(data, at, to);
    default:
      INFOPT_ROLL for (int i = 0; i < 4; ++i) {
        const W v = load_bits<W>(t, data, at + i);
        to[0] = to[1], to[1] = to[2], to[2] = to[3], to[3] = v;  // places known when compiled: it stays in registers
      }
  }
}

template <class T, class W> INFOPT_DEVICE void store_some_as(void* data, int64_t at, const W (&from)[4], int count) {
  T* to = static_cast<T*>(data) + at;
  if (count == 4) {
    Four<T> four;
    INFOPT_UNROLL for (int i = 0; i < 4; ++i) four.v[i] = narrow<T>(from[i]);
    *reinterpret_cast<Four<T>*>(to) = four;
    return;
  }
  INFOPT_UNROLL for (int i = 0; i < 4; ++i)
    if (i < count) to[i] = narrow<T>(from[i]);
}

/// Bytes of 8-bit floats and packed types; the bits behind the last element are 0.
template <class W> INFOPT_DEVICE void store_bits(DType t, void* data, int64_t at, const W (&from)[4], int count, bool saturate, int rounding) {
  const int bits = packed_bits(t);
  W left[4] = {from[0], from[1], from[2], from[3]};
  uint32_t all = 0;
  INFOPT_ROLL for (int i = 0; i < count; ++i) {
    all |= static_cast<uint32_t>(bits_for(t, left[0], saturate, rounding)) << (i * bits);
    left[0] = left[1], left[1] = left[2], left[2] = left[3];
  }
  uint8_t* to = static_cast<uint8_t*>(data) + at * bits / 8;
  for (int i = 0; i * 8 < count * bits; ++i) to[i] = static_cast<uint8_t>(all >> (8 * i));
}

/// `count` elements (1 to 4) from place `at` on, a multiple of 4 in memory that is aligned for the type's fours.
template <class W> INFOPT_DEVICE void store_some(DType t, void* data, int64_t at, const W (&from)[4], int count, bool saturate = true, int rounding = 0) {
  switch (t) {
    case DType::F32: return store_some_as<float>(data, at, from, count);
    case DType::F16: return store_some_as<half>(data, at, from, count);
    case DType::BF16: return store_some_as<bfloat16>(data, at, from, count);
    case DType::F64: return store_some_as<double>(data, at, from, count);
    case DType::I64: return store_some_as<int64_t>(data, at, from, count);
    case DType::I32: return store_some_as<int32_t>(data, at, from, count);
    case DType::U8: return store_some_as<uint8_t>(data, at, from, count);
    case DType::I8: return store_some_as<int8_t>(data, at, from, count);
    case DType::Bool: return store_some_as<bool>(data, at, from, count);
    case DType::U16: return store_some_as<uint16_t>(data, at, from, count);
    case DType::I16: return store_some_as<int16_t>(data, at, from, count);
    case DType::U32: return store_some_as<uint32_t>(data, at, from, count);
    case DType::U64: return store_some_as<uint64_t>(data, at, from, count);
    default: return store_bits(t, data, at, from, count, saturate, rounding);
  }
}

/// One element of a type whose elements are whole bytes.
template <class W> INFOPT_DEVICE void store_one(DType t, void* data, int64_t at, W v) {
  switch (t) {
    case DType::F32: static_cast<float*>(data)[at] = narrow<float>(v); return;
    case DType::F16: static_cast<half*>(data)[at] = narrow<half>(v); return;
    case DType::BF16: static_cast<bfloat16*>(data)[at] = narrow<bfloat16>(v); return;
    case DType::F64: static_cast<double*>(data)[at] = narrow<double>(v); return;
    case DType::I64: static_cast<int64_t*>(data)[at] = narrow<int64_t>(v); return;
    case DType::I32: static_cast<int32_t*>(data)[at] = narrow<int32_t>(v); return;
    case DType::U8: static_cast<uint8_t*>(data)[at] = narrow<uint8_t>(v); return;
    case DType::I8: static_cast<int8_t*>(data)[at] = narrow<int8_t>(v); return;
    case DType::Bool: static_cast<bool*>(data)[at] = narrow<bool>(v); return;
    case DType::U16: static_cast<uint16_t*>(data)[at] = narrow<uint16_t>(v); return;
    case DType::I16: static_cast<int16_t*>(data)[at] = narrow<int16_t>(v); return;
    case DType::U32: static_cast<uint32_t*>(data)[at] = narrow<uint32_t>(v); return;
    case DType::U64: static_cast<uint64_t*>(data)[at] = narrow<uint64_t>(v); return;
    default: static_cast<uint8_t*>(data)[at] = static_cast<uint8_t>(bits_for(t, v, true, 0)); return;
  }
}

}  // namespace infopt::cuda
