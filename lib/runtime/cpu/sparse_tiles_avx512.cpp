// Lists: 8 sums for 64 rows. Panels: 8 rows, two sums each. Tables: a permutation of two vectors of activations for each step.
#if defined(__x86_64__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 sees it in its own intrinsics (its bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"

#include "lib/runtime/cpu/vectors_avx512.h"

namespace infopt::cpu {
namespace {
constexpr int kPanelRows = 8, kTableRows = 6;
INFOPT_TILE inline Vec splat(const float* p) { return _mm512_set1_ps(*p); }
}  // namespace
}  // namespace infopt::cpu

#include "lib/runtime/cpu/sparse_tiles_body.h"

namespace infopt::cpu {
namespace {

template <int R>
INFOPT_TILE void multiply_table(const TableTile& t) {
  constexpr int64_t kBlocks = kLongestSum / kTableDepth;
  Vec sums[R];
  const Vec bias = t.bias ? load(t.bias) : Vec{};
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) sums[r] = bias;
  const float* values = t.values;
  const uint8_t* places = t.places;
  for (int64_t from = 0; from < t.blocks; from += kBlocks) {
    const int64_t to = from + kBlocks < t.blocks ? from + kBlocks : t.blocks;
    Vec part[R] = {};
    for (int64_t b = from; b < to; ++b) {
      __m512 low[R], high[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        low[r] = load(t.x + r * t.x_stride + b * kTableDepth);
        high[r] = load(t.x + r * t.x_stride + b * kTableDepth + kLanes);
      }
      for (int s = t.steps[b]; s > 0; --s, values += kSparsePanel, places += kSparsePanel) {
        const __m512i place = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(places)));
        const Vec w = load(values);
        __builtin_prefetch(values + kAhead);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) part[r] = fma_of(_mm512_permutex2var_ps(low[r], place, high[r]), w, part[r]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sums[r] += part[r];
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    float* y = t.y + r * t.y_stride;
    store(y, t.adds ? sums[r] + load(y) : sums[r]);
  }
}

template <int R>
INFOPT_TILE void table_rows(const TableTile& t) {
  if constexpr (R > 0) {
    if (t.rows == R) multiply_table<R>(t);
    else table_rows<R - 1>(t);
  }
}

void multiply_tables(const TableTile& t) { table_rows<kTableRows>(t); }

INFOPT_TILE void transpose(const float* const* from, float* to, int64_t to_stride) {
  __m512 r[16], t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(from[i]);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + j + 2]);
      r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88), t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88), t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    _mm512_storeu_ps(to + i * to_stride, _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88));
    _mm512_storeu_ps(to + (i + 8) * to_stride, _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd));
  }
}

}  // namespace

const SparseTiles& avx512_sparse_tiles() {
  static constexpr SparseTiles tiles{kLanes, kListRows, kPanelRows, kTableRows, sum_lists, multiply_panels, multiply_tables, transpose};
  return tiles;
}

}  // namespace infopt::cpu
#endif
