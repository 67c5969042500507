// 6 rows by 4 vectors: 24 sums, 4 vectors of B and one element of A in 32 registers.
#if defined(__x86_64__)
#include <immintrin.h>

#define INFOPT_TILE __attribute__((target("avx512f,fma")))

namespace infopt::cpu {
namespace {
typedef float Vec __attribute__((vector_size(64)));
constexpr int kVectors = 4, kRows = 6;
INFOPT_TILE inline Vec fma_of(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
}  // namespace
}  // namespace infopt::cpu

#include "lib/runtime/cpu/float_tiles_body.h"

namespace infopt::cpu {
const FloatTiles& avx512_float_tiles() {
  static constexpr FloatTiles tiles{kLanes, kVectors, kRows, multiply_any};
  return tiles;
}
}  // namespace infopt::cpu
#endif
