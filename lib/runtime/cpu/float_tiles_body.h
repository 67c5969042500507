// The one text of the tiles, compiled once for each instruction set: the includer has vectors (vectors_*.h) and defines kVectors and kRows.
#include "lib/runtime/cpu/float_tiles.h"

namespace infopt::cpu {
namespace {

template <int R, int V>
INFOPT_TILE void multiply(const FloatTile& t) {
  Vec sums[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sums[r][v] = t.decay ? load(t.c + r * t.c_stride + v * kLanes) * t.decay[r] : Vec{};
  const float *a = t.a, *b = t.b;
  const int64_t a_stride = t.a_stride, b_stride = t.b_stride, depth = t.depth;
  for (int64_t k = 0; k < depth; ++k, ++a, b += b_stride) {
    Vec column[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) column[v] = load(b + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec x = a[r * a_stride] - Vec{};
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[r][v] = fma_of(x, column[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(t.c + r * t.c_stride + v * kLanes, sums[r][v]);
}

template <int R, int V>
INFOPT_TILE void multiply_vectors(const FloatTile& t) {
  if constexpr (V > 0) {
    if (t.vectors == V) multiply<R, V>(t);
    else multiply_vectors<R, V - 1>(t);
  }
}

template <int R>
INFOPT_TILE void multiply_rows(const FloatTile& t) {
  if constexpr (R > 0) {
    if (t.rows == R) multiply_vectors<R, kVectors>(t);
    else multiply_rows<R - 1>(t);
  }
}

void multiply_any(const FloatTile& t) { multiply_rows<kRows>(t); }

}  // namespace
}  // namespace infopt::cpu
