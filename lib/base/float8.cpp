#include "lib/base/float8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "lib/base/error.h"

namespace infopt {
namespace {

struct Format {
  int exponent_bits, mantissa_bits, bias;
  bool infinities;    ///< IEEE-like: the top exponent holds infinity and NaN
  bool nan_all_ones;  ///< NaN is all ones below the sign
  bool unsigned_zero; ///< FNUZ: the code 0x80 is the only NaN
};

Format format_of(DType t) {
  switch (t) {
    case DType::F8E4M3FN: return {4, 3, 7, false, true, false};
    case DType::F8E4M3FNUZ: return {4, 3, 8, false, false, true};
    case DType::F8E5M2: return {5, 2, 15, true, false, false};
    case DType::F8E5M2FNUZ: return {5, 2, 16, false, false, true};
    case DType::F4E2M1: return {2, 1, 1, false, false, false};
    default: throw Error(ErrorKind::Defect, std::string(name_of(t)) + " is no small float");
  }
}

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// The formats that engines compute with, without the library's slow ilogb and ldexp: 1.5·2^23 times the step rounds half to even.
template <int digits, int bias> uint8_t encode_quickly(float value, float most) {
  const auto sign = static_cast<uint8_t>(std::bit_cast<uint32_t>(value) >> 31 << 7);
  if (std::isnan(value)) return 0x7f;
  constexpr uint32_t kLeast = static_cast<uint32_t>(128 - bias) << 23;  // the least normal number's bits
  const float magnitude = std::min(std::fabs(value), most);
  const uint32_t power = std::max(std::bit_cast<uint32_t>(magnitude) & 0x7f800000u, kLeast);
  const float magic = std::bit_cast<float>(power) * (12582912.0f / (1 << digits));
  const float rounded = (magnitude + magic) - magic;
  const uint32_t bits = std::bit_cast<uint32_t>(rounded);
  if (bits < kLeast) return static_cast<uint8_t>(sign | static_cast<int>(rounded * (static_cast<float>(1 << digits) / std::bit_cast<float>(kLeast))));
  return static_cast<uint8_t>(sign | (bits - (static_cast<uint32_t>(127 - bias) << 23)) >> (23 - digits));
}

}  // namespace

float decode_small_float(DType dtype, uint8_t code) {
  if (dtype == DType::F8E8M0) return code == 0xff ? kNaN : std::ldexp(1.0f, code - 127);
  const Format f = format_of(dtype);
  const int width = 1 + f.exponent_bits + f.mantissa_bits;
  const int sign_bit = 1 << (width - 1);
  const int magnitude = code & (sign_bit - 1);
  const int exponent = magnitude >> f.mantissa_bits, mantissa = magnitude & ((1 << f.mantissa_bits) - 1);
  if (f.unsigned_zero && code == sign_bit) return kNaN;
  if (f.nan_all_ones && magnitude == sign_bit - 1) return kNaN;
  const float sign = (code & sign_bit) ? -1.0f : 1.0f;
  if (f.infinities && exponent == (1 << f.exponent_bits) - 1) return mantissa ? kNaN : sign * std::numeric_limits<float>::infinity();
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), 1 - f.bias - f.mantissa_bits);
  return sign * std::ldexp(static_cast<float>(mantissa + (1 << f.mantissa_bits)), exponent - f.bias - f.mantissa_bits);
}

uint8_t encode_small_float(DType dtype, float value) {
  if (dtype == DType::F8E8M0) {
    if (std::isnan(value)) return 0xff;
    if (value <= 0) return 0;
    return static_cast<uint8_t>(std::fmin(254.0f, std::fmax(0.0f, std::nearbyint(std::log2(value)) + 127.0f)));
  }
  if (dtype == DType::F8E4M3FN) return encode_quickly<3, 7>(value, 448.0f);
  if (dtype == DType::F8E5M2) return encode_quickly<2, 15>(value, 57344.0f);
  const Format f = format_of(dtype);
  const int width = 1 + f.exponent_bits + f.mantissa_bits;
  const uint8_t sign_bit = static_cast<uint8_t>(1 << (width - 1));
  if (std::isnan(value)) return f.unsigned_zero ? sign_bit : static_cast<uint8_t>(f.nan_all_ones || f.infinities ? sign_bit - 1 : 0);
  int top = sign_bit - 1;  // the largest finite code
  if (f.nan_all_ones) top -= 1;
  if (f.infinities) top -= 1 << f.mantissa_bits;
  const float magnitude = std::fabs(value);
  const int least = 1 - f.bias - f.mantissa_bits;  // exponent of the smallest step
  int exponent = magnitude > 0 ? std::ilogb(magnitude) : -1000;
  if (exponent < 1 - f.bias) exponent = 1 - f.bias;
  int code = top;
  if (!std::isinf(value)) {
    const int step = std::max(least, exponent - f.mantissa_bits);
    const float steps = std::nearbyint(std::ldexp(magnitude, -step));
    const int base = (exponent + f.bias - 1) << f.mantissa_bits;
    const float sum = static_cast<float>(base) + steps;
    code = sum < static_cast<float>(top) ? static_cast<int>(sum) : top;
  }
  if (f.unsigned_zero && code == 0) return 0;
  return static_cast<uint8_t>(code | (std::signbit(value) ? sign_bit : 0));
}

}  // namespace infopt
