// Integer kernels for AVX2: bytes widened to 16 bits before they are multiplied, so that no pair of products saturates.
#include "lib/runtime/cpu/int8_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#define INFOPT_AVX2 __attribute__((target("avx2")))

namespace infopt::cpu {
namespace {

constexpr int kRows = 4;  // rows at a time, each with sums of 8 columns in two vectors

/// Sums of 8 columns: even and odd pairs of the four products lie in neighbouring lanes, columns 0…3 in `low`, 4…7 in `high`.
struct Sums {
  __m256i low, high;
};

INFOPT_AVX2 inline __m256i widen_weights(const int8_t* w) {
  return _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(w)));
}

INFOPT_AVX2 inline void store_sums(const Sums& sums, const int32_t* start, int32_t* to) {
  const __m256i pairs = _mm256_permute4x64_epi64(_mm256_hadd_epi32(sums.low, sums.high), _MM_SHUFFLE(3, 1, 2, 0));
  _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm256_add_epi32(pairs, _mm256_load_si256(reinterpret_cast<const __m256i*>(start))));
}

template <int N>
INFOPT_AVX2 void multiply(const Int8Tile& tile, const Int8Panel& panel, int64_t row, int64_t column, int32_t (*sums)[kInt8Panel]) {
  Sums s[N];
  for (int r = 0; r < N; ++r) s[r].low = s[r].high = _mm256_setzero_si256();
  const int64_t step_bytes = panel.vectors * kInt8Lanes * 4;
  const int8_t* weights = panel.weights + 4 * column;
  for (int64_t t = 0; t < tile.tap_count; ++t) {
    const uint8_t* x[N];
    for (int r = 0; r < N; ++r) x[r] = tile.rows[row + r] + tile.shift + tile.taps[t];
    for (int64_t k = 0; k < 4 * tile.steps; k += 4, weights += step_bytes) {
      const __m256i low = widen_weights(weights), high = widen_weights(weights + 16);
      for (int r = 0; r < N; ++r) {
        int32_t four;
        std::memcpy(&four, x[r] + k, 4);
        const __m256i a = _mm256_cvtepu8_epi16(_mm_set1_epi32(four));
        s[r].low = _mm256_add_epi32(s[r].low, _mm256_madd_epi16(a, low));
        s[r].high = _mm256_add_epi32(s[r].high, _mm256_madd_epi16(a, high));
      }
    }
  }
  for (int r = 0; r < N; ++r) store_sums(s[r], panel.start + column, sums[r] + column);
}

void product(const Int8Tile& tile, const Int8Panel& panel, const Int8Finish& finish) {
  for (int64_t row = 0; row < tile.count; row += kRows) {
    const int64_t rows = std::min<int64_t>(kRows, tile.count - row);
    alignas(64) int32_t sums[kRows][kInt8Panel];
    for (int64_t column = 0; column < panel.vectors * kInt8Lanes; column += 8) {
      if (rows == kRows) multiply<kRows>(tile, panel, row, column, sums);
      else
        for (int64_t r = 0; r < rows; ++r) multiply<1>(tile, panel, row + r, column, sums + r);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t place = (row + r) * tile.stride;
      finish_int8_lanes(finish, panel, tile.row_sums ? tile.row_sums[row + r] : 0, sums[r], int8_place(tile.residual, place, finish),
                        int8_place(tile.dst, place, finish));
    }
  }
}

INFOPT_AVX2 void depthwise(const Int8DepthwiseLine& line, const Int8Panel& panel, const Int8Finish& finish) {
  const int64_t lanes = panel.vectors * kInt8Lanes;
  for (int64_t x = 0; x < line.count; ++x) {
    alignas(64) int32_t sums[kInt8Panel];
    for (int64_t p = 0; p < lanes; p += 8) {
      Sums s{_mm256_setzero_si256(), _mm256_setzero_si256()};
      for (int64_t t = 0; t < line.tap_count; ++t) {
        const int8_t* weights = panel.weights + 4 * (t * lanes + p);
        const uint8_t* src = line.src + x * line.pixel_stride + line.taps[t] + 4 * p;
        const __m256i low = _mm256_cvtepu8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(src)));
        const __m256i high = _mm256_cvtepu8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(src + 16)));
        s.low = _mm256_add_epi32(s.low, _mm256_madd_epi16(low, widen_weights(weights)));
        s.high = _mm256_add_epi32(s.high, _mm256_madd_epi16(high, widen_weights(weights + 16)));
      }
      store_sums(s, panel.start + p, sums + p);
    }
    finish_int8_lanes(finish, panel, 0, sums, int8_place(line.residual, x * line.stride, finish),
                      int8_place(line.dst, x * line.stride, finish));
  }
}

}  // namespace

const Int8Kernels& int8_avx2_kernels() {
  static const Int8Kernels kernels{product,
                                   depthwise,
                                   int8_portable_kernels().interleave,
                                   nullptr,
                                   nullptr,
                                   int8_portable_kernels().lookup,
                                   int8_portable_kernels().sum_rows};
  return kernels;
}

}  // namespace infopt::cpu
#endif
