// Integer kernels for AVX-512 VNNI: vpdpbusd adds four products of uint8 and int8 to an int32, exactly.
#include "lib/runtime/cpu/int8_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "lib/runtime/cpu/int8_finish_avx512.h"

namespace infopt::cpu {
namespace {

using avx512::End;
using avx512::end_of;
using avx512::end_rows;
using avx512::finish_rows;
using avx512::look_up_rows;
using avx512::Rows;

/// Rows that keep the multipliers busy while their sums and one step of weights fit the 32 registers.
constexpr int rows_for(int vectors) { return vectors == 4 ? 6 : 8; }

INFOPT_AVX512 inline __m512i load(const void* p) { return _mm512_load_si512(p); }

INFOPT_AVX512 inline __m512i broadcast_four(const uint8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}

template <int R, int V>
INFOPT_AVX512_INLINE void subtract_zeros(__m512i (&s)[R][V], const int32_t* zeros, const int32_t* row_sums) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const __m512i sum = _mm512_set1_epi32(row_sums[r]);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) s[r][v] = _mm512_sub_epi32(s[r][v], _mm512_mullo_epi32(load(zeros + v * kInt8Lanes), sum));
  }
}

/// R rows and V vectors of columns.
template <int R, int V>
INFOPT_AVX512 void multiply(const Int8Tile& tile, const Int8Panel& panel, const End& end, int64_t row, const void* residual, void* dst,
                            int32_t* sums) {
  __m512i s[R][V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const __m512i start = load(panel.start + v * kInt8Lanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) s[r][v] = start;
  }
  const int8_t* weights = panel.weights;
  const int64_t bytes = 4 * tile.steps;
  for (int64_t t = 0; t < tile.tap_count; ++t) {
    const uint8_t* x[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) x[r] = tile.rows[row + r] + tile.shift + tile.taps[t];
    for (int64_t k = 0; k < bytes; k += 4, weights += 64 * V) {
      __m512i w[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) w[v] = load(weights + 64 * v);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i a = broadcast_four(x[r] + k);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) s[r][v] = _mm512_dpbusd_epi32(s[r][v], a, w[v]);
      }
    }
  }
  if (panel.weight_zero) subtract_zeros<R, V>(s, panel.weight_zero, tile.row_sums + row);
  end_rows<R, V>(s, end, residual, dst, tile.stride, sums);
}

template <int V, int R>
INFOPT_AVX512 void multiply_rest(int64_t rest, const Int8Tile& tile, const Int8Panel& panel, const End& end, int64_t row,
                                 const void* residual, void* dst, int32_t* sums) {
  if constexpr (R > 0) {
    if (rest == R) multiply<R, V>(tile, panel, end, row, residual, dst, sums);
    else multiply_rest<V, R - 1>(rest, tile, panel, end, row, residual, dst, sums);
  }
}

template <int V>
INFOPT_AVX512 void product_rows(const Int8Tile& tile, const Int8Panel& panel, const Int8Finish& finish) {
  constexpr int R = rows_for(V);
  alignas(64) int32_t sums[R * V * kInt8Lanes];
  const End end = end_of(panel, finish);
  for (int64_t row = 0; row < tile.count; row += R) {
    const int64_t rows = std::min<int64_t>(R, tile.count - row), place = row * tile.stride;
    void* dst = int8_place(tile.dst, place, finish);
    const void* residual = int8_place(tile.residual, place, finish);
    if (rows == R) multiply<R, V>(tile, panel, end, row, residual, dst, sums);
    else multiply_rest<V, R - 1>(rows, tile, panel, end, row, residual, dst, sums);
    if (end.kind == End::kSpill) finish_rows<V>({sums, rows, dst, residual, tile.stride}, panel, finish);
    else look_up_rows(dst, rows, tile.stride, panel.columns, finish);
  }
}

void product(const Int8Tile& tile, const Int8Panel& panel, const Int8Finish& finish) {
  switch (panel.vectors) {
    case 1: return product_rows<1>(tile, panel, finish);
    case 2: return product_rows<2>(tile, panel, finish);
    case 3: return product_rows<3>(tile, panel, finish);
    default: return product_rows<4>(tile, panel, finish);
  }
}

/// R neighbouring pixels.
template <int R, int V>
INFOPT_AVX512 void multiply_line(const Int8DepthwiseLine& line, const Int8Panel& panel, const End& end, int64_t x, const void* residual,
                                 void* dst, int32_t* sums) {
  __m512i s[R][V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const __m512i start = load(panel.start + v * kInt8Lanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) s[r][v] = start;
  }
  const uint8_t* first = line.src + x * line.pixel_stride;
  for (int64_t t = 0; t < line.tap_count; ++t) {
    const uint8_t* src = first + line.taps[t];
    const int8_t* weights = panel.weights + t * 64 * V;
    __m512i w[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) w[v] = load(weights + 64 * v);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) s[r][v] = _mm512_dpbusd_epi32(s[r][v], load(src + r * line.pixel_stride + 64 * v), w[v]);
  }
  end_rows<R, V>(s, end, residual, dst, line.stride, sums);
}

template <int V>
INFOPT_AVX512 void depthwise_pixels(const Int8DepthwiseLine& line, const Int8Panel& panel, const Int8Finish& finish) {
  constexpr int R = rows_for(V);
  alignas(64) int32_t sums[R * V * kInt8Lanes];
  const End end = end_of(panel, finish);
  for (int64_t x = 0; x < line.count; x += R) {
    const int64_t rows = std::min<int64_t>(R, line.count - x), place = x * line.stride;
    void* dst = int8_place(line.dst, place, finish);
    const void* residual = int8_place(line.residual, place, finish);
    if (rows == R) multiply_line<R, V>(line, panel, end, x, residual, dst, sums);
    else
      for (int64_t r = 0; r < rows; ++r)
        multiply_line<1, V>(line, panel, end, x + r, int8_place(residual, r * line.stride, finish),
                            int8_place(dst, r * line.stride, finish), sums + r * V * kInt8Lanes);
    if (end.kind == End::kSpill) finish_rows<V>({sums, rows, dst, residual, line.stride}, panel, finish);
    else look_up_rows(dst, rows, line.stride, panel.columns, finish);
  }
}

void depthwise(const Int8DepthwiseLine& line, const Int8Panel& panel, const Int8Finish& finish) {
  switch (panel.vectors) {
    case 1: return depthwise_pixels<1>(line, panel, finish);
    case 2: return depthwise_pixels<2>(line, panel, finish);
    default: return depthwise_pixels<4>(line, panel, finish);
  }
}

/// The bytes of four sources of V·16 channels each, four bytes a lane. Within each 128-bit lane 4·V channels are spread over the V vectors.
template <int V>
INFOPT_AVX512 inline void interleave_pixel(const Int8Interleave& job, int64_t x, __mmask64 mask, __m512i spread) {
  __m512i t[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_maskz_loadu_epi8(mask, job.sources[i] + x * job.stride);
    if constexpr (V < 4) t[i] = _mm512_permutexvar_epi32(spread, t[i]);
  }
  uint8_t* dst = job.dst + x * job.dst_stride;
  const __m512i low01 = _mm512_unpacklo_epi8(t[0], t[1]), low23 = _mm512_unpacklo_epi8(t[2], t[3]);
  _mm512_store_si512(dst, _mm512_unpacklo_epi16(low01, low23));
  if constexpr (V >= 2) _mm512_store_si512(dst + 64, _mm512_unpackhi_epi16(low01, low23));
  if constexpr (V == 4) {
    const __m512i high01 = _mm512_unpackhi_epi8(t[0], t[1]), high23 = _mm512_unpackhi_epi8(t[2], t[3]);
    _mm512_store_si512(dst + 128, _mm512_unpacklo_epi16(high01, high23));
    _mm512_store_si512(dst + 192, _mm512_unpackhi_epi16(high01, high23));
  }
}

template <int V>
INFOPT_AVX512 void interleave_pixels(const Int8Interleave& job) {
  const __mmask64 mask = job.channels >= 64 ? ~0ull : (1ull << job.channels) - 1;
  // 32-bit words to the front of each 128-bit lane: one for a vector, two for two.
  const __m512i spread = V == 1 ? _mm512_setr_epi32(0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0)
                                : _mm512_setr_epi32(0, 1, 0, 0, 2, 3, 0, 0, 4, 5, 0, 0, 6, 7, 0, 0);
  for (int64_t x = 0; x < job.count; ++x) interleave_pixel<V>(job, x, mask, spread);
}

void interleave(const Int8Interleave& job) {
  switch (job.vectors) {
    case 1: return interleave_pixels<1>(job);
    case 2: return interleave_pixels<2>(job);
    default: return interleave_pixels<4>(job);
  }
}

INFOPT_AVX512 void sum_rows(const Int8Tile& tile, int64_t run_bytes, int32_t* sums) {
  const __m512i ones = _mm512_set1_epi8(1);
  const int64_t whole = run_bytes / 64 * 64;
  const __mmask64 rest = (1ull << (run_bytes - whole)) - 1;
  for (int64_t r = 0; r < tile.count; ++r) {
    __m512i sum = _mm512_setzero_si512();
    for (int64_t t = 0; t < tile.tap_count; ++t) {
      const uint8_t* x = tile.rows[r] + tile.shift + tile.taps[t];
      for (int64_t k = 0; k < whole; k += 64) sum = _mm512_dpbusd_epi32(sum, _mm512_loadu_si512(x + k), ones);
      sum = _mm512_dpbusd_epi32(sum, _mm512_maskz_loadu_epi8(rest, x + whole), ones);
    }
    sums[r] = _mm512_reduce_add_epi32(sum);
  }
}

}  // namespace

const Int8Kernels& int8_avx512_kernels() {
  static const Int8Kernels kernels{
      product,       depthwise,    interleave,
      avx512::slide, avx512::pair, __builtin_cpu_supports("avx512vbmi") ? avx512::lookup_vbmi : int8_portable_kernels().lookup,
      sum_rows};
  return kernels;
}

}  // namespace infopt::cpu
#endif
