// Lists: 8 sums for 32 rows. Panels: 3 rows of two vectors, two sums each.
#if defined(__x86_64__)
#include "lib/runtime/cpu/vectors_avx2.h"

namespace infopt::cpu {
namespace {
constexpr int kPanelRows = 3;
INFOPT_TILE inline Vec splat(const float* p) { return _mm256_broadcast_ss(p); }
}  // namespace
}  // namespace infopt::cpu

#include "lib/runtime/cpu/sparse_tiles_body.h"

namespace infopt::cpu {
namespace {

INFOPT_TILE void transpose(const float* const* from, float* to, int64_t to_stride) {
  __m256 r[8], t[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(from[i]);
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]), t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j)
      r[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44), r[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}

}  // namespace

const SparseTiles& avx2_sparse_tiles() {
  static constexpr SparseTiles tiles{kLanes, kListRows, kPanelRows, 0, sum_lists, multiply_panels, nullptr, transpose};
  return tiles;
}

}  // namespace infopt::cpu
#endif
