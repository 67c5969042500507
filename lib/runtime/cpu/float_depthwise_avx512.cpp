#if defined(__x86_64__)
#include "lib/runtime/cpu/vectors_avx512.h"

namespace infopt::cpu {
namespace {
constexpr int kPixels = 8;
INFOPT_TILE inline Vec load_some(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p); }
INFOPT_TILE inline void store_some(float* p, Vec v, int64_t n) { _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v); }
}  // namespace
}  // namespace infopt::cpu

#include "lib/runtime/cpu/float_depthwise_body.h"

namespace infopt::cpu {
void avx512_depthwise(const DepthwiseImage& image, int64_t row, int64_t first, int64_t count) { segment_any(image, row, first, count); }
}  // namespace infopt::cpu
#endif
