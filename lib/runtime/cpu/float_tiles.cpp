// The choice of an instruction set, and the tiles of vectors that every processor has.
#include "lib/runtime/cpu/float_tiles.h"

#include <atomic>

#include "lib/base/error.h"
#include "lib/runtime/cpu/vectors_portable.h"

namespace infopt::cpu {
namespace {
constexpr int kVectors = 2, kRows = 4;
}  // namespace
}  // namespace infopt::cpu

#include "lib/runtime/cpu/float_tiles_body.h"

namespace infopt::cpu {
namespace {

const FloatTiles* tiles_of(FloatIsa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case FloatIsa::Avx512: return &avx512_float_tiles();
    case FloatIsa::Avx2: return &avx2_float_tiles();
#endif
    default: return &portable_float_tiles();
  }
}

std::atomic<const FloatTiles*>& chosen() {
  static std::atomic<const FloatTiles*> tiles = [] {
    for (const FloatIsa isa : {FloatIsa::Avx512, FloatIsa::Avx2})
      if (has_float_isa(isa)) return tiles_of(isa);
    return tiles_of(FloatIsa::Portable);
  }();
  return tiles;
}

}  // namespace

const FloatTiles& portable_float_tiles() {
  static constexpr FloatTiles tiles{kLanes, kVectors, kRows, multiply_any};
  return tiles;
}

bool has_float_isa(FloatIsa isa) {
#if defined(__x86_64__)
  if (isa == FloatIsa::Avx512) return __builtin_cpu_supports("avx512f");
  if (isa == FloatIsa::Avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return isa == FloatIsa::Portable;
}

const FloatTiles& float_tiles() { return *chosen().load(std::memory_order_relaxed); }

void use_float_isa(FloatIsa isa) {
  if (!has_float_isa(isa)) throw Error(ErrorKind::Unsupported, "the processor lacks that instruction set");
  chosen() = tiles_of(isa);
}

}  // namespace infopt::cpu
