// Depthwise 3×3 windows with AVX-512: a column's three bytes are put side by side once, in registers, and used by every window that holds
// it.
#include <cstring>

#include "lib/runtime/cpu/int8_finish_avx512.h"

#if defined(__x86_64__)

namespace infopt::cpu::avx512 {
namespace {

/// Columns as quads (three lines and a zero) in the lanes' order.
template <int V>
struct Columns {
  const Int8SlidingLine& line;
  __m512i flip, outside, spread;
  __mmask64 mask;
  const uint8_t *top, *middle, *bottom;
  int64_t top_stride, middle_stride, bottom_stride, width;
};

template <int V>
INFOPT_AVX512_INLINE __m512i load_channels(const uint8_t* p, const Columns<V>& c) {
  if constexpr (V == 4) return _mm512_xor_si512(_mm512_maskz_loadu_epi8(c.mask, p), c.flip);
  const __m512i bytes = V == 2 ? _mm512_castsi256_si512(_mm256_maskz_loadu_epi8(static_cast<__mmask32>(c.mask), p))
                               : _mm512_castsi128_si512(_mm_maskz_loadu_epi8(static_cast<__mmask16>(c.mask), p));
  return _mm512_permutexvar_epi32(c.spread, _mm512_xor_si512(bytes, c.flip));
}

template <int V>
INFOPT_AVX512_INLINE void load_column(const Columns<V>& c, int64_t column, __m512i (&quad)[V]) {
  if (static_cast<uint64_t>(column) >= static_cast<uint64_t>(c.width)) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) quad[v] = c.outside;
    return;
  }
  const __m512i top = load_channels<V>(c.top + column * c.top_stride, c), middle = load_channels<V>(c.middle + column * c.middle_stride, c);
  const __m512i bottom = load_channels<V>(c.bottom + column * c.bottom_stride, c), none = _mm512_setzero_si512();
  const __m512i low = _mm512_unpacklo_epi8(top, middle), low_rest = _mm512_unpacklo_epi8(bottom, none);
  quad[0] = _mm512_unpacklo_epi16(low, low_rest);
  if constexpr (V >= 2) quad[1] = _mm512_unpackhi_epi16(low, low_rest);
  if constexpr (V == 4) {
    const __m512i high = _mm512_unpackhi_epi8(top, middle), high_rest = _mm512_unpackhi_epi8(bottom, none);
    quad[2] = _mm512_unpacklo_epi16(high, high_rest);
    quad[3] = _mm512_unpackhi_epi16(high, high_rest);
  }
}

template <int V>
INFOPT_AVX512_INLINE void multiply_column(__m512i (&sums)[V], const __m512i (&quad)[V], const int8_t* weights) {
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) sums[v] = _mm512_dpbusd_epi32(sums[v], quad[v], _mm512_load_si512(weights + 64 * v));
}

/// `R` pixels; `left` is the first column of the first, and becomes that of the next pixel's.
template <int R, int V, int S, int P>
INFOPT_AVX512_INLINE void slide_pixels(const Columns<V>& columns, const Int8Panel& panel, const End& end, int64_t x, __m512i (&left)[V],
                                       __m512i (&middle)[V], const void* residual, void* dst, int32_t* spilled) {
  __m512i sums[R][V];
  const int64_t first = x * S + columns.line.first;
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[r][v] = _mm512_load_si512(panel.start + v * kInt8Lanes);
    __m512i right[V];
    if constexpr (S == 2) load_column<V>(columns, first + r * S + 1, middle);
    load_column<V>(columns, first + r * S + 2, right);
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p) {
      multiply_column<V>(sums[r], left, panel.weights + p * 192 * V);
      multiply_column<V>(sums[r], middle, panel.weights + (p * 192 + 64) * V);
      multiply_column<V>(sums[r], right, panel.weights + (p * 192 + 128) * V);
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      left[v] = S == 1 ? middle[v] : right[v];
      middle[v] = right[v];
    }
  }
  end_rows<R, V>(sums, end, residual, dst, columns.line.stride, spilled);
}

template <int V, int S, int P>
INFOPT_AVX512 void slide_line(const Int8SlidingLine& line, const Int8Panel& panel, const Int8Finish& finish) {
  constexpr int R = 4 / V;
  alignas(64) int32_t spilled[64];
  const End end = end_of(panel, finish);
  uint32_t outside = 0;
  std::memset(&outside, line.outside, 3);
  const __m512i spread = V == 1 ? _mm512_setr_epi32(0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0)
                                : _mm512_setr_epi32(0, 1, 0, 0, 2, 3, 0, 0, 4, 5, 0, 0, 6, 7, 0, 0);
  const Columns<V> columns{line,
                           _mm512_set1_epi8(static_cast<char>(line.flip)),
                           _mm512_set1_epi32(static_cast<int32_t>(outside)),
                           spread,
                           panel.columns >= 64 ? ~0ull : (1ull << panel.columns) - 1,
                           line.sources[0],
                           line.sources[1],
                           line.sources[2],
                           line.strides[0],
                           line.strides[1],
                           line.strides[2],
                           line.width};
  __m512i left[V], middle[V];
  load_column<V>(columns, line.first, left);
  load_column<V>(columns, line.first + 1, middle);
  for (int64_t x = 0; x < line.count;) {
    void* dst = int8_place(line.dst, x * line.stride, finish);
    const void* residual = int8_place(line.residual, x * line.stride, finish);
    const int64_t rows = line.count - x >= R ? R : 1;
    if (rows == R) slide_pixels<R, V, S, P>(columns, panel, end, x, left, middle, residual, dst, spilled);
    else slide_pixels<1, V, S, P>(columns, panel, end, x, left, middle, residual, dst, spilled);
    if (end.kind == End::kSpill) finish_rows<V>({spilled, rows, dst, residual, line.stride}, panel, finish);
    else look_up_rows(dst, rows, line.stride, panel.columns, finish);
    x += rows;
  }
}

template <int V>
void slide_vectors(const Int8SlidingLine& line, const Int8Panel& panel, const Int8Finish& finish) {
  if (line.parts == 1) return line.step == 1 ? slide_line<V, 1, 1>(line, panel, finish) : slide_line<V, 2, 1>(line, panel, finish);
  return line.step == 1 ? slide_line<V, 1, 2>(line, panel, finish) : slide_line<V, 2, 2>(line, panel, finish);
}

}  // namespace

void slide(const Int8SlidingLine& line, const Int8Panel& panel, const Int8Finish& finish) {
  switch (panel.vectors) {
    case 1: return slide_vectors<1>(line, panel, finish);
    case 2: return slide_vectors<2>(line, panel, finish);
    default: return slide_vectors<4>(line, panel, finish);
  }
}

}  // namespace infopt::cpu::avx512
#endif
