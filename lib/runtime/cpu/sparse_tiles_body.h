// The one text of the loops, compiled once for each instruction set: the includer has vectors (vectors_*.h) and defines kPanelRows and splat().
#include "lib/runtime/cpu/sparse_tiles.h"

namespace infopt::cpu {
namespace {

constexpr int kListVectors = 4, kPanelVectors = kSparsePanel / kLanes;
constexpr int64_t kListRows = kListVectors * kLanes;
constexpr int64_t kAhead = 1024;       // floats: few rows are done before the processor sees by itself that weights are read in their order
constexpr int64_t kLongestSum = 1024;  // longer ones are sums of such sums, lest their roundings add up

/// Two sums for each vector of rows, so that one doesn't wait for the other.
template <int V>
INFOPT_TILE void sum_columns(const ListTile& t) {
  const float* const x = t.x;
  const float* const values = t.values;
  const uint16_t* const offsets = t.offsets;
  float* sums = t.sums;
  uint32_t i = t.ends[-1];
  for (int64_t c = 0; c < t.columns; ++c, sums += kListRows) {
    Vec even[V] = {}, odd[V] = {};
    const uint32_t end = t.ends[c];
    for (; i + 2 <= end; i += 2) {
      const Vec w0 = splat(values + i), w1 = splat(values + i + 1);
      const float *p = x + offsets[i], *q = x + offsets[i + 1];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) even[v] = fma_of(w0, load(p + v * kLanes), even[v]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) odd[v] = fma_of(w1, load(q + v * kLanes), odd[v]);
    }
    if (i < end) {
      const Vec w = splat(values + i);
      const float* p = x + offsets[i++];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) even[v] = fma_of(w, load(p + v * kLanes), even[v]);
    }
    const Vec bias = t.bias ? splat(t.bias + c) : Vec{};
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(sums + v * kLanes, (even[v] + odd[v]) + (t.adds ? load(sums + v * kLanes) : bias));
  }
}

template <int V>
INFOPT_TILE void list_vectors(const ListTile& t) {
  if constexpr (V > 0) {
    if (t.vectors == V) sum_columns<V>(t);
    else list_vectors<V - 1>(t);
  }
}

/// The weights of 16 columns and one depth times that column of x.
template <int R>
INFOPT_TILE inline __attribute__((always_inline)) void add_row(const float* x, int64_t x_stride, const float* values, Vec (&sums)[R][kPanelVectors]) {
  Vec w[kPanelVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kPanelVectors; ++v) w[v] = load(values + v * kLanes);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const Vec a = splat(x + r * x_stride);
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) sums[r][v] = fma_of(a, w[v], sums[r][v]);
  }
}

template <int R>
INFOPT_TILE void multiply_panel(const PanelTile& t) {
  Vec sums[R][kPanelVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) sums[r][v] = t.bias ? load(t.bias + v * kLanes) : Vec{};
  const float* values = t.values;
  for (int64_t from = 0; from < t.count; from += kLongestSum) {
    const int64_t to = from + kLongestSum < t.count ? from + kLongestSum : t.count;
    Vec even[R][kPanelVectors] = {}, odd[R][kPanelVectors] = {};
    int64_t i = from;
    for (; i + 2 <= to; i += 2, values += 2 * kSparsePanel) {
      __builtin_prefetch(values + kAhead);
      __builtin_prefetch(values + kAhead + kSparsePanel);
      add_row<R>(t.x + t.depths[i], t.x_stride, values, even);
      add_row<R>(t.x + t.depths[i + 1], t.x_stride, values + kSparsePanel, odd);
    }
    if (i < to) {
      add_row<R>(t.x + t.depths[i], t.x_stride, values, even);
      values += kSparsePanel;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) sums[r][v] += even[r][v] + odd[r][v];
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) {
      float* y = t.y + r * t.y_stride + v * kLanes;
      store(y, t.adds ? sums[r][v] + load(y) : sums[r][v]);
    }
}

template <int R>
INFOPT_TILE void panel_rows(const PanelTile& t) {
  if constexpr (R > 0) {
    if (t.rows == R) multiply_panel<R>(t);
    else panel_rows<R - 1>(t);
  }
}

void sum_lists(const ListTile& t) { list_vectors<kListVectors>(t); }
void multiply_panels(const PanelTile& t) { panel_rows<kPanelRows>(t); }

}  // namespace
}  // namespace infopt::cpu
