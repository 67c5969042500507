// 6 rows by 2 vectors: 12 sums, 2 vectors of B and one element of A in 16 registers.
#if defined(__x86_64__)
#include "lib/runtime/cpu/vectors_avx2.h"

namespace infopt::cpu {
namespace {
constexpr int kVectors = 2, kRows = 6;
}  // namespace
}  // namespace infopt::cpu

#include "lib/runtime/cpu/float_tiles_body.h"

namespace infopt::cpu {
const FloatTiles& avx2_float_tiles() {
  static constexpr FloatTiles tiles{kLanes, kVectors, kRows, multiply_any};
  return tiles;
}
}  // namespace infopt::cpu
#endif
