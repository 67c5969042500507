// The ends of the AVX-512 kernels: from int32 sums to what is stored. The same operations as finish_int8_row's.
#pragma once
#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>
#include <cstdint>

#include "lib/runtime/cpu/int8_kernels.h"

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 sees it in its own intrinsics (its bug 105593)

#define INFOPT_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define INFOPT_AVX512_INLINE INFOPT_AVX512 inline __attribute__((always_inline))

namespace infopt::cpu::avx512 {

/// 32-bit words of packed bytes into the columns' order: packing leaves word 4·lane + vector.
struct Order {
  alignas(64) int32_t words[16];
};
inline constexpr Order kNaturalOrder = {{0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15}};
inline constexpr Order kShuffledOrder2 = {{0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15}};
inline constexpr Order kShuffledOrder4 = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};

inline const Order& order_of(const Int8Panel& panel) {
  if (!panel.shuffled || panel.vectors == 1) return kNaturalOrder;
  return panel.vectors == 2 ? kShuffledOrder2 : kShuffledOrder4;
}

/// How packed codes become bytes: + zero with saturation, between `least` and `most`; computed as uint8, then flipped for int8.
struct Bytes {
  __m512i order, zero, least, most, flip;
};

INFOPT_AVX512_INLINE Bytes bytes_of(const Int8Panel& panel, const Int8Finish& finish, float low, float high, int32_t zero) {
  const int32_t shifted = zero + finish.flip;
  const int32_t least = _mm_cvtss_si32(_mm_set_ss(low)) + shifted, most = _mm_cvtss_si32(_mm_set_ss(high)) + shifted;
  return {_mm512_load_si512(order_of(panel).words), _mm512_set1_epi16(static_cast<int16_t>(shifted)),
          _mm512_set1_epi8(static_cast<char>(least)), _mm512_set1_epi8(static_cast<char>(most)),
          _mm512_set1_epi8(static_cast<char>(finish.flip))};
}

template <int V>
INFOPT_AVX512_INLINE __m512i pack(const __m512i (&codes)[V], const Bytes& b) {
  const __m512i none = _mm512_setzero_si512();
  __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(codes[0], V > 1 ? codes[V > 1 ? 1 : 0] : none), b.zero), high = none;
  if constexpr (V > 2) high = _mm512_adds_epi16(_mm512_packs_epi32(codes[2], V > 3 ? codes[V > 3 ? 3 : 0] : none), b.zero);
  const __m512i packed = _mm512_permutexvar_epi32(b.order, _mm512_packus_epi16(low, high));
  return _mm512_xor_si512(_mm512_min_epu8(_mm512_max_epu8(packed, b.least), b.most), b.flip);
}

template <int V>
INFOPT_AVX512_INLINE void store_bytes(uint8_t* dst, __m512i bytes, int64_t columns) {
  if (columns == V * kInt8Lanes) {
    if constexpr (V == 1) _mm_storeu_si128(reinterpret_cast<__m128i*>(dst), _mm512_castsi512_si128(bytes));
    else if constexpr (V == 4) _mm512_storeu_si512(dst, bytes);
    else _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), _mm512_castsi512_si256(bytes));
    if constexpr (V == 3) _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + 32), _mm512_extracti32x4_epi32(bytes, 2));
  } else {
    _mm512_mask_storeu_epi8(dst, (1ull << columns) - 1, bytes);
  }
}

INFOPT_AVX512_INLINE __mmask16 lane_mask(int64_t columns) {
  return columns >= kInt8Lanes ? 0xFFFF : static_cast<__mmask16>((1u << (columns > 0 ? columns : 0)) - 1);
}

/// The ends that need no more than the sums, so that these may stay in registers; `spill` for all others.
struct End {
  enum Kind { kSpill, kBytes, kSums, kFloats } kind;  ///< kSums: bytes that have a residual added
  Bytes bytes;
  __m512 low, high, ratio, residual_ratio;
  __m512i residual_zero, residual_flip;
  const float* scale;
  const float* float_bias;
  int64_t columns;
};

/// Sums times scales of at most 1 can't leave int32's range, so that all clamping may follow the rounding, which is monotone.
INFOPT_AVX512_INLINE bool scales_are_small(const Int8Panel& panel) {
  __mmask16 large = 0;
  for (int64_t i = 0; i < panel.vectors * kInt8Lanes; i += kInt8Lanes)
    large |= _mm512_cmp_ps_mask(_mm512_abs_ps(_mm512_load_ps(panel.scale + i)), _mm512_set1_ps(1.0f), _CMP_NLT_UQ);
  return large == 0;
}

INFOPT_AVX512_INLINE End end_of(const Int8Panel& panel, const Int8Finish& finish) {
  const Int8Epilogue& e = *finish.e;
  End end{};
  const bool natural = !panel.shuffled || panel.vectors == 1;
  end.low = _mm512_set1_ps(finish.low);
  end.high = _mm512_set1_ps(finish.high);
  end.scale = panel.scale;
  end.columns = panel.columns;
  if (finish.bytes && !e.float_bias && !e.residual && scales_are_small(panel)) {
    end.kind = End::kBytes;
    end.bytes = bytes_of(panel, finish, finish.low, finish.high, e.zero);
  } else if (finish.bytes && !e.float_bias && e.residual && natural && std::abs(e.ratio) < 1e6f && std::abs(e.residual_ratio) < 1e6f) {
    const int32_t flip = e.residual_dtype == DType::I8 ? 0x80 : 0;
    end.kind = End::kSums;
    end.bytes = bytes_of(panel, finish, finish.low2, finish.high2, e.zero2);
    end.ratio = _mm512_set1_ps(e.ratio);
    end.residual_ratio = _mm512_set1_ps(e.residual_ratio);
    end.residual_flip = _mm512_set1_epi32(flip);
    end.residual_zero = _mm512_set1_epi32(e.residual_zero + flip);
  } else if (e.output == DType::F32 && natural && !e.residual) {
    end.kind = End::kFloats;
    end.float_bias = e.float_bias ? e.float_bias + panel.first : nullptr;
  }
  return end;
}

template <int V>
INFOPT_AVX512_INLINE void end_bytes(const __m512i (&sums)[V], const End& end, uint8_t* dst) {
  __m512i codes[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v)
    codes[v] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[v]), _mm512_load_ps(end.scale + v * kInt8Lanes)));
  store_bytes<V>(dst, pack<V>(codes, end.bytes), end.columns);
}

/// 4 / V rows, which together fill one vector of bytes.
template <int V>
INFOPT_AVX512_INLINE void end_joined_bytes(const __m512i (*sums)[V], const End& end, uint8_t* dst, int64_t stride) {
  __m512i codes[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    codes[i] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[i / V][i % V]), _mm512_load_ps(end.scale + i % V * kInt8Lanes)));
  const __m512i bytes = pack<4>(codes, end.bytes);
  if constexpr (V == 1) {
    store_bytes<1>(dst, bytes, end.columns);
    store_bytes<1>(dst + stride, _mm512_castsi128_si512(_mm512_extracti32x4_epi32(bytes, 1)), end.columns);
    store_bytes<1>(dst + 2 * stride, _mm512_castsi128_si512(_mm512_extracti32x4_epi32(bytes, 2)), end.columns);
    store_bytes<1>(dst + 3 * stride, _mm512_castsi128_si512(_mm512_extracti32x4_epi32(bytes, 3)), end.columns);
  } else {
    store_bytes<V>(dst, bytes, end.columns);
    store_bytes<V>(dst + stride, _mm512_castsi256_si512(_mm512_extracti64x4_epi64(bytes, 1)), end.columns);
  }
}

// The second rounding is cut to its range after it, like end_bytes' only: 255 steps times such ratios stay within int32.
template <int V>
INFOPT_AVX512_INLINE void end_sums(const __m512i (&sums)[V], const End& end, const uint8_t* residual, uint8_t* dst) {
  __m512i codes[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    __m512 q = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[v]), _mm512_load_ps(end.scale + v * kInt8Lanes));
    q = _mm512_roundscale_ps(_mm512_min_ps(_mm512_max_ps(q, end.low), end.high), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m128i bytes = _mm_maskz_loadu_epi8(lane_mask(end.columns - v * kInt8Lanes), residual + v * kInt8Lanes);
    const __m512i r = _mm512_sub_epi32(_mm512_xor_si512(_mm512_cvtepu8_epi32(bytes), end.residual_flip), end.residual_zero);
    codes[v] = _mm512_cvtps_epi32(_mm512_add_ps(_mm512_mul_ps(q, end.ratio), _mm512_mul_ps(_mm512_cvtepi32_ps(r), end.residual_ratio)));
  }
  store_bytes<V>(dst, pack<V>(codes, end.bytes), end.columns);
}

template <int V>
INFOPT_AVX512_INLINE void end_floats(const __m512i (&sums)[V], const End& end, float* dst) {
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const __mmask16 mask = lane_mask(end.columns - v * kInt8Lanes);
    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[v]), _mm512_load_ps(end.scale + v * kInt8Lanes));
    if (end.float_bias) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, end.float_bias + v * kInt8Lanes));
    value = _mm512_min_ps(_mm512_max_ps(value, end.low), end.high);
    if (mask == 0xFFFF) _mm512_storeu_ps(dst + v * kInt8Lanes, value);
    else _mm512_mask_storeu_ps(dst + v * kInt8Lanes, mask, value);
  }
}

/// R rows of sums, either stored as `end` says, `stride` elements apart, or put into `spilled`.
template <int R, int V>
INFOPT_AVX512_INLINE void end_rows(const __m512i (&sums)[R][V], const End& end, const void* residual, void* dst, int64_t stride,
                                   int32_t* spilled) {
  if (end.kind == End::kBytes) {
    constexpr int kJoined = V <= 2 ? R * V / 4 * 4 / V : 0;
    if constexpr (V <= 2) {
#pragma GCC unroll 8
      for (int r = 0; r < kJoined; r += 4 / V) end_joined_bytes<V>(sums + r, end, static_cast<uint8_t*>(dst) + r * stride, stride);
    }
#pragma GCC unroll 8
    for (int r = kJoined; r < R; ++r) end_bytes<V>(sums[r], end, static_cast<uint8_t*>(dst) + r * stride);
  } else if (end.kind == End::kSums) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
      end_sums<V>(sums[r], end, static_cast<const uint8_t*>(residual) + r * stride, static_cast<uint8_t*>(dst) + r * stride);
  } else if (end.kind == End::kFloats) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) end_floats<V>(sums[r], end, static_cast<float*>(dst) + r * stride);
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) _mm512_store_si512(spilled + (r * V + v) * kInt8Lanes, sums[r][v]);
  }
}

/// Rows of sums, V·16 lanes each, 64-byte aligned; overwritten. The weights' zero points are in them already.
struct Rows {
  int32_t* sums;
  int64_t count;
  void* dst;
  const void* residual;
  int64_t stride;  ///< of dst and residual, in elements
};

/// Replaces the codes of `count` rows, where there is a table: what end_rows leaves undone.
void look_up_rows(void* dst, int64_t count, int64_t stride, int64_t columns, const Int8Finish& finish);
/// Any end.
template <int V>
void finish_rows(const Rows& rows, const Int8Panel& panel, const Int8Finish& finish);
extern template void finish_rows<1>(const Rows&, const Int8Panel&, const Int8Finish&);
extern template void finish_rows<2>(const Rows&, const Int8Panel&, const Int8Finish&);
extern template void finish_rows<3>(const Rows&, const Int8Panel&, const Int8Finish&);
extern template void finish_rows<4>(const Rows&, const Int8Panel&, const Int8Finish&);

/// Int8Kernels::slide.
void slide(const Int8SlidingLine& line, const Int8Panel& panel, const Int8Finish& finish);
/// Int8Kernels::pair.
void pair(const Int8Pair& how, bool multiply, const uint8_t* a, const uint8_t* b, int64_t n, uint8_t* y);
/// Needs AVX-512 VBMI.
void lookup_vbmi(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table);

}  // namespace infopt::cpu::avx512
#endif
