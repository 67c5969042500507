// 6 rows by 4 vectors: 24 sums, 4 vectors of B and one element of A in 32 registers.
#if defined(__x86_64__)
#include "lib/runtime/cpu/vectors_avx512.h"

namespace infopt::cpu {
namespace {
constexpr int kVectors = 4, kRows = 6;
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
