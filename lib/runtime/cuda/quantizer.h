// What QuantizeLinear and DequantizeLinear do with one element, for every kernel that reads or writes codes: the CPU's operations in its order.
#pragma once
#include <optional>

#include "lib/runtime/cuda/portable.h"
#include "lib/runtime/fused_ops.h"

namespace infopt::cuda {

/// A list of numbers of a type that is known at launch: scales, zero points. `data` null: zeros.
struct Numbers {
  const void* data = nullptr;
  DType type = DType::F32;

  INFOPT_DEVICE float operator[](int64_t i) const {
    if (!data) return 0;
    switch (type) {
      case DType::F32: return static_cast<const float*>(data)[i];
      case DType::F16: return load_float(static_cast<const half*>(data)[i]);
      case DType::BF16: return load_float(static_cast<const bfloat16*>(data)[i]);
      case DType::U8: return static_cast<float>(static_cast<const uint8_t*>(data)[i]);
      case DType::I8: return static_cast<float>(static_cast<const int8_t*>(data)[i]);
      case DType::U16: return static_cast<float>(static_cast<const uint16_t*>(data)[i]);
      case DType::I16: return static_cast<float>(static_cast<const int16_t*>(data)[i]);
      case DType::I32: return static_cast<float>(static_cast<const int32_t*>(data)[i]);
      case DType::F8E4M3FN: return load_float(static_cast<const float8_e4m3*>(data)[i]);
      case DType::F8E5M2: return load_float(static_cast<const float8_e5m2*>(data)[i]);
      default: {
        const int nibble = static_cast<const uint8_t*>(data)[i / 2] >> (i % 2 ? 4 : 0) & 15;
        return static_cast<float>(type == DType::I4 && nibble >= 8 ? nibble - 16 : nibble);
      }
    }
  }
};

/// What QuantizeLinear makes of a number: the code's bits in the low ones.
struct Quantizer {
  float low, high;  ///< of the type's codes
  DType to, precision;

  INFOPT_DEVICE uint32_t operator()(float x, float scale, float zero) const {
    float v = __fdiv_rn(x, scale);
    if (precision == DType::F16) v = rounded<half>(v);
    if (precision == DType::BF16) v = rounded<bfloat16>(v);
    if (to == DType::F8E4M3FN) return bits<float8_e4m3>(__fadd_rn(v, zero));
    if (to == DType::F8E5M2) return bits<float8_e5m2>(__fadd_rn(v, zero));
    const float least = low - zero, most = high - zero;
    v = v > least ? v : least;  // NaN becomes the least
    v = v < most ? v : most;
    return __float_as_uint(__fadd_rn(__fadd_rn(v, 12582912.0f), zero)) - 0x4B400000u;
  }
  template <class T> INFOPT_DEVICE static float rounded(float v) {
    T t;
    store_float(t, v);
    return load_float(t);
  }
  template <class T> INFOPT_DEVICE static uint32_t bits(float v) {
    T t;
    store_float(t, v);
    return t.bits;
  }
};

inline Quantizer quantizer_to(DType to, DType precision) {
  const float steps = static_cast<float>(1u << bits_of(to));
  const bool is_signed = to == DType::I8 || to == DType::I16;
  return {is_signed ? -steps / 2 : 0, is_signed ? steps / 2 - 1 : steps - 1, to, precision};
}

/// Writes the 8-bit codes of values that a tensor of `from` (F32, F16 or BF16) would have held, with one scale. Without `codes` there are none to write.
struct CodeWriter {
  uint8_t* codes = nullptr;
  Quantizer quantizer = {};
  float scale = 1, zero = 0;
  DType from = DType::F32;

  static CodeWriter of(const CodeEnd& end, DType from, void* codes) {
    return {static_cast<uint8_t*>(codes), quantizer_to(end.type, end.precision), end.scale, end.zero, from};
  }
  template <class W> INFOPT_DEVICE uint8_t code(W value) const {
    float v = static_cast<float>(value);
    if (from == DType::F16) v = Quantizer::rounded<half>(v);
    if (from == DType::BF16) v = Quantizer::rounded<bfloat16>(v);
    return static_cast<uint8_t>(quantizer(v, scale, zero));
  }
  /// `count` codes, 1 to 4, from place `at` on; `together`: four, on a multiple of 4.
  template <class W> INFOPT_DEVICE void store(int64_t at, const W (&v)[4], int count, bool together) const {
    if (together) {
      *reinterpret_cast<uint32_t*>(codes + at) = static_cast<uint32_t>(code(v[0])) | static_cast<uint32_t>(code(v[1])) << 8 | static_cast<uint32_t>(code(v[2])) << 16 | static_cast<uint32_t>(code(v[3])) << 24;
      return;
    }
    INFOPT_UNROLL for (int k = 0; k < 4; ++k)
      if (k < count) codes[at + k] = code(v[k]);
  }
};

}  // namespace infopt::cuda
