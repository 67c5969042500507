#include "lib/base/dtype.h"

#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "lib/base/error.h"

namespace infopt {
namespace {

struct Info {
  std::string_view name;
  uint8_t bits;
  char kind;  // 'f'loat, 'i'nteger, 'b'ool, 'c'omplex, 's'tring
};

constexpr std::array<Info, kDTypeCount> kInfo{{
    {"undefined", 0, '?'}, {"float32", 32, 'f'}, {"uint8", 8, 'i'}, {"int8", 8, 'i'}, {"uint16", 16, 'i'},
    {"int16", 16, 'i'}, {"int32", 32, 'i'}, {"int64", 64, 'i'}, {"string", 0, 's'}, {"bool", 8, 'b'},
    {"float16", 16, 'f'}, {"float64", 64, 'f'}, {"uint32", 32, 'i'}, {"uint64", 64, 'i'}, {"complex64", 64, 'c'},
    {"complex128", 128, 'c'}, {"bfloat16", 16, 'f'}, {"float8e4m3fn", 8, 'f'}, {"float8e4m3fnuz", 8, 'f'},
    {"float8e5m2", 8, 'f'}, {"float8e5m2fnuz", 8, 'f'}, {"uint4", 4, 'i'}, {"int4", 4, 'i'}, {"float4e2m1", 4, 'f'},
    {"float8e8m0", 8, 'f'}, {"uint2", 2, 'i'}, {"int2", 2, 'i'},
}};

const Info& info(DType t) { return kInfo[static_cast<size_t>(t) < kInfo.size() ? static_cast<size_t>(t) : 0]; }

}  // namespace

size_t bits_of(DType t) { return info(t).bits; }

size_t bytes_of(DType t, int64_t count) {
  const size_t bits = bits_of(t);
  if (count < 0 || (bits != 0 && static_cast<uint64_t>(count) > (std::numeric_limits<uint64_t>::max() - 7) / bits))
    throw Error(ErrorKind::Malformed, "a tensor of " + std::to_string(count) + " elements is larger than memory can address");
  return (static_cast<size_t>(count) * bits + 7) / 8;
}

std::string_view name_of(DType t) { return info(t).name; }

DType dtype_from_name(std::string_view name) {
  for (size_t i = 1; i < kInfo.size(); ++i)
    if (kInfo[i].name == name) return static_cast<DType>(i);
  return DType::Undefined;
}

bool is_float(DType t) { return info(t).kind == 'f'; }
bool is_integer(DType t) { return info(t).kind == 'i'; }

float to_float(half h) {
  const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000u) << 16;
  const uint32_t exponent = (h.bits >> 10) & 0x1f;
  const uint32_t mantissa = h.bits & 0x3ff;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

half to_half(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {  // below the smallest normal half: let the float adder round at 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5f)))};
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((rounded >> 13) - (112u << 10)))};
}

float to_float(bfloat16 b) { return std::bit_cast<float>(static_cast<uint32_t>(b.bits) << 16); }

bfloat16 to_bfloat16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace infopt
