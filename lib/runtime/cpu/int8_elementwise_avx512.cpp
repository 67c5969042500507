// Sums and products of two 8-bit operands with AVX-512, 64 elements at a time. Widening and packing both work within 128-bit lanes, so that
// the elements come out in their order.
#include "lib/runtime/cpu/int8_finish_avx512.h"

#if defined(__x86_64__)

namespace infopt::cpu::avx512 {
namespace {

/// An operand: its bytes are flipped, then made floats of 2^23 + byte, from which 2^23 + zero is taken: exact.
struct Operand {
  __m512i flip;
  __m512 zero, ratio;
};

struct Constants {
  Operand a, b;
  __m512i zero, least, most, flip;
};

INFOPT_AVX512_INLINE Operand operand_of(const Int8PairCodes& codes, float ratio) {
  return {_mm512_set1_epi8(static_cast<char>(codes.flip)), _mm512_set1_ps(8388608.0f + static_cast<float>(codes.zero)),
          _mm512_set1_ps(ratio)};
}

/// The values of all 64 elements, in the order in which pack puts them back.
INFOPT_AVX512_INLINE void widen(__m512i bytes, const Operand& o, __m512 (&values)[4]) {
  const __m512i none = _mm512_setzero_si512(), exponent = _mm512_set1_epi16(0x4B00);
  bytes = _mm512_xor_si512(bytes, o.flip);
  const __m512i low = _mm512_unpacklo_epi8(bytes, none), high = _mm512_unpackhi_epi8(bytes, none);
  values[0] = _mm512_sub_ps(_mm512_castsi512_ps(_mm512_unpacklo_epi16(low, exponent)), o.zero);
  values[1] = _mm512_sub_ps(_mm512_castsi512_ps(_mm512_unpackhi_epi16(low, exponent)), o.zero);
  values[2] = _mm512_sub_ps(_mm512_castsi512_ps(_mm512_unpacklo_epi16(high, exponent)), o.zero);
  values[3] = _mm512_sub_ps(_mm512_castsi512_ps(_mm512_unpackhi_epi16(high, exponent)), o.zero);
}

/// Bounds are applied to the bytes: rounding is monotone, and with ratios below 1e4 nothing leaves int32's range.
template <bool Multiply>
INFOPT_AVX512_INLINE __m512i combine(__m512i a, __m512i b, const Constants& c) {
  __m512 x[4], y[4];
  __m512i codes[4];
  widen(a, c.a, x);
  widen(b, c.b, y);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 v = Multiply ? _mm512_mul_ps(_mm512_mul_ps(x[i], y[i]), c.a.ratio)
                              : _mm512_add_ps(_mm512_mul_ps(x[i], c.a.ratio), _mm512_mul_ps(y[i], c.b.ratio));
    codes[i] = _mm512_cvtps_epi32(v);
  }
  const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(codes[0], codes[1]), c.zero);
  const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(codes[2], codes[3]), c.zero);
  return _mm512_xor_si512(_mm512_min_epu8(_mm512_max_epu8(_mm512_packus_epi16(low, high), c.least), c.most), c.flip);
}

template <bool Multiply>
INFOPT_AVX512 void run(const Int8Pair& how, const uint8_t* a, const uint8_t* b, int64_t n, uint8_t* y) {
  const int32_t zero = how.y.zero + how.y.flip;
  const int32_t least = _mm_cvtss_si32(_mm_set_ss(how.y.low)) + zero, most = _mm_cvtss_si32(_mm_set_ss(how.y.high)) + zero;
  const Constants c{operand_of(how.a, how.a_ratio),
                    operand_of(how.b, how.b_ratio),
                    _mm512_set1_epi16(static_cast<int16_t>(zero)),
                    _mm512_set1_epi8(static_cast<char>(least)),
                    _mm512_set1_epi8(static_cast<char>(most)),
                    _mm512_set1_epi8(static_cast<char>(how.y.flip))};
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) _mm512_storeu_si512(y + i, combine<Multiply>(_mm512_loadu_si512(a + i), _mm512_loadu_si512(b + i), c));
  if (i == n) return;
  const __mmask64 mask = (1ull << (n - i)) - 1;
  _mm512_mask_storeu_epi8(y + i, mask, combine<Multiply>(_mm512_maskz_loadu_epi8(mask, a + i), _mm512_maskz_loadu_epi8(mask, b + i), c));
}

}  // namespace

void pair(const Int8Pair& how, bool multiply, const uint8_t* a, const uint8_t* b, int64_t n, uint8_t* y) {
  if (multiply) run<true>(how, a, b, n, y);
  else run<false>(how, a, b, n, y);
}

}  // namespace infopt::cpu::avx512
#endif
