// Encodings into 8-bit floats where ONNX's Cast and QuantizeLinear ask for more than lib/base/float8.h gives.
#pragma once
#include <bit>
#include <cmath>

#include "lib/base/float8.h"

namespace infopt {

/// ONNX's table for saturate = 0: past the largest value comes infinity where the type has it, else NaN. With saturate it is encode_small_float.
inline uint8_t encode_float8(DType dtype, float value, bool saturate) {
  if (saturate || std::isnan(value)) return encode_small_float(dtype, value);
  const float magnitude = std::fabs(value);
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  switch (dtype) {  // the limits lie halfway to the step after the largest value; a tie goes to the even code
    case DType::F8E4M3FN: if (magnitude > 464.0f) return sign | 0x7f; break;
    case DType::F8E4M3FNUZ: if (magnitude >= 248.0f) return 0x80; break;
    case DType::F8E5M2: if (magnitude >= 61440.0f) return sign | 0x7c; break;
    case DType::F8E5M2FNUZ: if (magnitude >= 61440.0f) return 0x80; break;
    default: break;
  }
  return encode_small_float(dtype, value);
}

enum class ScaleRounding { Up, Down, Nearest };

/// A float as a power of two, its exponent biased by 127; 0xff is NaN. The sign is dropped. `Nearest` rounds up from 1.5·2^k.
inline uint8_t encode_e8m0(float value, ScaleRounding rounding, bool saturate) {
  if (std::isnan(value)) return 0xff;
  const uint32_t bits = std::bit_cast<uint32_t>(value) & 0x7fffffffu;
  if (bits >= 0x7f800000u) return saturate ? 0xfe : 0xff;
  uint32_t exponent = bits >> 23;
  const uint32_t mantissa = bits & 0x7fffffu;
  if (exponent == 0) {  // below 2^-126: the codes 0 (2^-127) and 1 are near
    const bool up = rounding == ScaleRounding::Up ? mantissa > 0x400000u : rounding == ScaleRounding::Nearest && mantissa >= 0x600000u;
    if (!saturate && mantissa < 0x400000u) return 0xff;
    return up ? 1 : 0;
  }
  if (rounding == ScaleRounding::Up ? mantissa > 0 : rounding == ScaleRounding::Nearest && mantissa >= 0x400000u) ++exponent;
  if (exponent > 254) return saturate ? 0xfe : 0xff;
  return static_cast<uint8_t>(exponent);
}

}  // namespace infopt
