#if defined(__x86_64__)
#include "lib/runtime/cpu/vectors_avx2.h"

namespace infopt::cpu {
namespace {
constexpr int kPixels = 6;
INFOPT_TILE inline __m256i lanes_below(int64_t n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
INFOPT_TILE inline Vec load_some(const float* p, int64_t n) { return n == 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, lanes_below(n)); }
INFOPT_TILE inline void store_some(float* p, Vec v, int64_t n) {
  if (n == 8) _mm256_storeu_ps(p, v);
  else _mm256_maskstore_ps(p, lanes_below(n), v);
}
}  // namespace
}  // namespace infopt::cpu

#include "lib/runtime/cpu/float_depthwise_body.h"

namespace infopt::cpu {
void avx2_depthwise(const DepthwiseImage& image, int64_t row, int64_t first, int64_t count) { segment_any(image, row, first, count); }
}  // namespace infopt::cpu
#endif
