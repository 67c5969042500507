// Functions of one float that the compiler vectorizes: no branches or tables, so that a loop over them gives each element the same bits
// wherever it lies and whatever the instruction set (with contraction off). Products with sums are fused where the text says fma: an
// instruction set that lacks it calls the C library, slowly and to the same bits, so loops are to be INFOPT_SIMD (lib/base/simd.h). Relative
// errors are below 4e-7 (tests/base/float_math_test.cpp); the polynomials are Lawson-weighted least-squares fits of our own.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#define INFOPT_INLINE inline __attribute__((always_inline))

namespace infopt {
namespace detail {

inline constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;  // the high part has 9 bits: times an exponent it is exact
inline constexpr float kRounder = 12582912.0f;                              // 1.5·2^23: adding it rounds to the nearest integer, half to even

/// c₀ + x·(c₁ + x·(c₂ + …)).
INFOPT_INLINE float horner(float, float c) { return c; }
template <class... Rest> INFOPT_INLINE float horner(float x, float c, Rest... rest) { return std::fma(x, horner(x, rest...), c); }

/// (exp(r) − 1 − r) / r² on |r| ≤ ln2/2.
INFOPT_INLINE float exp_tail(float r) { return horner(r, 0.5f, 0.166665181517601f, 0.04166620597243309f, 0.008368908427655697f, 0.0013950521824881434f); }

/// erf(x)/x as a polynomial in u = x², |x| ≤ 1.
INFOPT_INLINE float erf_ratio(float u) {
  return horner(u, 1.1283791065216064f, -0.3761262595653534f, 0.11283600330352783f, -0.026854444295167923f, 0.005189535208046436f,
                -0.0008020841050893068f, 7.889119297033176e-05f);
}

/// −ln erfc(t), 1 ≤ t ≤ 4.
INFOPT_INLINE float minus_log_erfc(float t) {
  return horner(t, -0.000385898893000558f, 1.1305384635925293f, 0.6312173008918762f, 0.11076608300209045f, -0.02690250054001808f,
                0.004977941047400236f, -0.0006609168485738337f, 5.7827328419080004e-05f, -2.864966745619313e-06f, 5.555609661200833e-08f);
}

}  // namespace detail

INFOPT_INLINE float exp_f(float x) {
  float c = x > 89.0f ? 89.0f : x;
  c = c < -104.0f ? -104.0f : c;
  const float t = std::fma(c, 1.44269504f, detail::kRounder);
  const float n = t - detail::kRounder;
  const float r = std::fma(-n, detail::kLn2Low, std::fma(-n, detail::kLn2High, c));
  const float p = 1.0f + std::fma(r * r, detail::exp_tail(r), r);
  // 2^n in two factors: n goes from -150 to 128, beyond what one float holds.
  const int32_t k = static_cast<int32_t>(std::bit_cast<uint32_t>(t) - 0x4B400000u);
  const int32_t k1 = k >> 1;
  const uint32_t b1 = (static_cast<uint32_t>(k1) + 127u) << 23;
  const uint32_t b2 = (static_cast<uint32_t>(k) - static_cast<uint32_t>(k1) + 127u) << 23;
  return p * std::bit_cast<float>(b1) * std::bit_cast<float>(b2);
}

/// exp(x) − 1, also near 0.
INFOPT_INLINE float expm1_f(float x) {
  const float near = std::fma(x * x, detail::exp_tail(x), x);
  const float far = exp_f(x) - 1.0f;
  return std::fabs(x) < 0.34f ? near : far;
}

INFOPT_INLINE float log_f(float x) {
  const bool tiny = x < 1.17549435e-38f;
  const float scaled = x * 8388608.0f;
  const uint32_t bits = std::bit_cast<uint32_t>(tiny ? scaled : x);
  const int32_t k = static_cast<int32_t>(bits - 0x3f3504f3u) >> 23;  // the mantissa goes from sqrt(1/2) to sqrt(2)
  const float f = std::bit_cast<float>(bits - (static_cast<uint32_t>(k) << 23)) - 1.0f;
  const float e = static_cast<float>(k) - (tiny ? 23.0f : 0.0f);
  const float p = detail::horner(f, 0.33333316445350647f, -0.25000810623168945f, 0.2000228613615036f, -0.16624553501605988f, 0.14181196689605713f,
                                 -0.13128767907619476f, 0.12881621718406677f, -0.07859545946121216f);
  const float y = std::fma(e, detail::kLn2High, f + std::fma(f * f, std::fma(f, p, -0.5f), e * detail::kLn2Low));
  const float special = x == 0.0f ? -std::numeric_limits<float>::infinity() : (x > 0.0f ? x : std::numeric_limits<float>::quiet_NaN());
  return x > 0.0f && x < std::numeric_limits<float>::infinity() ? y : special;
}

INFOPT_INLINE float sigmoid_f(float x) { return 1.0f / (1.0f + exp_f(-x)); }

INFOPT_INLINE float tanh_f(float x) {
  const float u = x * x;
  const float near = std::fma(x * u, detail::horner(u, -0.3333328366279602f, 0.13331490755081177f, -0.05374349653720856f, 0.020650578662753105f, -0.005717036779969931f), x);
  const float a = std::fabs(x);
  const float far = std::copysign(1.0f - 2.0f / (exp_f(a + a) + 1.0f), x);
  return a < 0.625f ? near : far;
}

INFOPT_INLINE float erf_f(float x) {
  const float a = std::fabs(x);
  const float near = x * detail::erf_ratio(x * x);
  const float t = a > 4.0f ? 4.0f : a;
  const float far = std::copysign(1.0f - exp_f(-detail::minus_log_erfc(t)), x);
  return a < 1.0f ? near : far;
}

/// x·Φ(x); below about −5.66, where the true value is above −5e−8, it is 0.
INFOPT_INLINE float gelu_f(float x) {
  const float s = x * 0.70710678f;
  const float a = std::fabs(s);
  const float near = std::fma(0.5f, s * detail::erf_ratio(s * s), 0.5f);
  const float t = a > 4.0f ? 4.0f : a;
  const float half_erfc = a > 4.0f ? 0.0f : 0.5f * exp_f(-detail::minus_log_erfc(t));
  const float far = x < 0.0f ? half_erfc : 1.0f - half_erfc;
  const float y = x * (a < 1.0f ? near : far);
  return x < -1e30f ? -0.0f : y;  // -inf too
}

/// ln(1 + exp(x)).
INFOPT_INLINE float softplus_f(float x) {
  const float e = exp_f(-std::fabs(x));
  const float u = 1.0f + e, d = u - 1.0f;
  const float l = d == 0.0f ? e : log_f(u) * (e / (d == 0.0f ? 1.0f : d));  // e/d undoes the rounding of 1 + e
  return (x > 0.0f ? x : 0.0f) + l;
}

/// x·tanh(softplus(x)).
INFOPT_INLINE float mish_f(float x) {
  const float e = exp_f(x > 20.0f ? 20.0f : x);
  const float n = e * (e + 2.0f);
  const float y = x * (n / (n + 2.0f));
  return x > 20.0f ? x : (x < -1e30f ? -0.0f : y);
}

/// The integer nearest to x, half to even, for any x.
INFOPT_INLINE float round_even_f(float x) {
  const float big = std::copysign(8388608.0f, x);
  const float r = std::copysign(std::fabs((x + big) - big), x);
  return std::fabs(x) < 8388608.0f ? r : x;
}

INFOPT_INLINE float half_to_float_f(uint16_t h) {
  const uint32_t magnitude = static_cast<uint32_t>(h & 0x7fffu) << 13;
  const float finite = std::bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t bits = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : std::bit_cast<uint32_t>(finite);
  return std::bit_cast<float>(bits | (static_cast<uint32_t>(h & 0x8000u) << 16));
}

INFOPT_INLINE uint16_t float_to_half_f(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f), magnitude = bits & 0x7fffffffu, sign = (bits >> 16) & 0x8000u;
  const uint32_t normal = ((magnitude + 0xfffu + ((magnitude >> 13) & 1u)) >> 13) - (112u << 10);
  const uint32_t small = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;  // the adder rounds at 2^-24
  uint32_t code = magnitude < 0x38800000u ? small : normal;
  code = magnitude >= 0x477ff000u ? 0x7c00u : code;
  code = magnitude > 0x7f800000u ? 0x7e00u : code;
  return static_cast<uint16_t>(sign | code);
}

INFOPT_INLINE float bfloat16_to_float_f(uint16_t b) { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); }

INFOPT_INLINE uint16_t float_to_bfloat16_f(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
}

}  // namespace infopt
