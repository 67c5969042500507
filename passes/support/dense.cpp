#include "passes/support/dense.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lib/base/simd.h"
#include "lib/base/threads.h"

namespace infopt {
namespace {

using Lanes __attribute__((vector_size(64))) = float;
constexpr int64_t kTileRows = 4, kTileColumns = 32, kDeep = 256, kSlab = 64, kWide = 512, kPanel = 64;

/// One tile of c += a·b from packed panels: a [deep][4], b [deep][32].
INFOPT_SIMD void multiply_tile(const float* a, const float* b, int64_t deep, float* c) {
  Lanes sum[kTileRows][2] = {};
  for (int64_t k = 0; k < deep; ++k) {
    const Lanes b0 = *reinterpret_cast<const Lanes*>(b + k * kTileColumns), b1 = *reinterpret_cast<const Lanes*>(b + k * kTileColumns + 16);
    for (int64_t i = 0; i < kTileRows; ++i) {
      const float x = a[k * kTileRows + i];
      sum[i][0] += x * b0;
      sum[i][1] += x * b1;
    }
  }
  for (int64_t i = 0; i < kTileRows; ++i) {
    *reinterpret_cast<Lanes*>(c + i * kTileColumns) = sum[i][0];
    *reinterpret_cast<Lanes*>(c + i * kTileColumns + 16) = sum[i][1];
  }
}

/// `count` lines of a matrix as panels of `width` lines side by side, the last one filled up with zeros.
void pack(const float* p, int64_t line, int64_t along, int64_t count, int64_t deep, int64_t width, float* out) {
  for (int64_t from = 0; from < count; from += width, out += deep * width) {
    const int64_t filled = std::min(width, count - from);
    for (int64_t k = 0; k < deep; ++k) {
      const float* source = p + from * line + k * along;
      float* to = out + k * width;
      for (int64_t i = 0; i < filled; ++i) to[i] = source[i * line];
      std::fill(to + filled, to + width, 0.0f);
    }
  }
}

/// The buffers lie on cache lines.
class Buffer {
 public:
  explicit Buffer(int64_t count) : memory_(static_cast<size_t>(count) + 16) {}
  float* data() { return memory_.data() + (16 - reinterpret_cast<uintptr_t>(memory_.data()) / sizeof(float) % 16) % 16; }

 private:
  std::vector<float> memory_;
};

int64_t rounded_up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

/// A slab of at most kSlab rows.
void multiply_slab(int64_t m, int64_t n, int64_t k, float alpha, MatrixView a, MatrixView b, float* c, int64_t stride) {
  const int64_t deepest = std::min(kDeep, k), widest = std::min(kWide, n);
  Buffer packed_a(rounded_up(m, kTileRows) * deepest), packed_b(rounded_up(widest, kTileColumns) * deepest);
  alignas(64) float tile[kTileRows * kTileColumns];
  for (int64_t k0 = 0; k0 < k; k0 += kDeep) {
    const int64_t deep = std::min(kDeep, k - k0);
    pack(a.p + k0 * a.columns, a.rows, a.columns, m, deep, kTileRows, packed_a.data());
    for (int64_t n0 = 0; n0 < n; n0 += kWide) {
      const int64_t wide = std::min(kWide, n - n0);
      pack(b.p + k0 * b.rows + n0 * b.columns, b.columns, b.rows, wide, deep, kTileColumns, packed_b.data());
      for (int64_t j = 0; j < wide; j += kTileColumns)
        for (int64_t i = 0; i < m; i += kTileRows) {
          multiply_tile(packed_a.data() + i * deep, packed_b.data() + j * deep, deep, tile);
          const int64_t rows = std::min(kTileRows, m - i), columns = std::min(kTileColumns, wide - j);
          for (int64_t r = 0; r < rows; ++r) {
            float* to = c + (i + r) * stride + n0 + j;
            for (int64_t x = 0; x < columns; ++x) to[x] += alpha * tile[r * kTileColumns + x];
          }
        }
    }
  }
}

/// The factor of one block on the diagonal, in double.
bool factor_block(float* a, int64_t stride, int64_t n) {
  std::vector<double> l(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      double sum = static_cast<double>(a[i * stride + j]);
      for (int64_t x = 0; x < j; ++x) sum -= l[static_cast<size_t>(i * n + x)] * l[static_cast<size_t>(j * n + x)];
      if (i == j && !(sum > 0)) return false;
      l[static_cast<size_t>(i * n + j)] = i == j ? std::sqrt(sum) : sum / l[static_cast<size_t>(j * n + j)];
    }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) a[i * stride + j] = j <= i ? static_cast<float>(l[static_cast<size_t>(i * n + j)]) : 0.0f;
  return true;
}

/// Rows x ← x·L⁻ᵀ (forward) or x·L⁻¹ (backward) for one block of L on the diagonal.
void solve_block(float* b, int64_t stride, int64_t m, const float* l, int64_t l_stride, int64_t n, bool forward) {
  for (int64_t r = 0; r < m; ++r) {
    float* x = b + r * stride;
    if (forward) {
      for (int64_t i = 0; i < n; ++i) {
        float sum = x[i];
        for (int64_t j = 0; j < i; ++j) sum -= l[i * l_stride + j] * x[j];
        x[i] = sum / l[i * l_stride + i];
      }
    } else {
      for (int64_t i = n - 1; i >= 0; --i) {
        x[i] /= l[i * l_stride + i];
        for (int64_t j = 0; j < i; ++j) x[j] -= l[i * l_stride + j] * x[i];
      }
    }
  }
}

}  // namespace

void add_product(int64_t m, int64_t n, int64_t k, float alpha, MatrixView a, MatrixView b, float* c, int64_t stride, int threads) {
  if (m <= 0 || n <= 0 || k <= 0) return;
  parallel_for((m + kSlab - 1) / kSlab, threads, [&](int64_t slab, int) {
    const int64_t from = slab * kSlab;
    multiply_slab(std::min(kSlab, m - from), n, k, alpha, {a.p + from * a.rows, a.rows, a.columns}, b, c + from * stride, stride);
  });
}

void add_gram(const float* x, int64_t rows, int64_t k, float* h, int threads) {
  parallel_for((k + kSlab - 1) / kSlab, threads, [&](int64_t slab, int) {
    const int64_t from = slab * kSlab, m = std::min(kSlab, k - from);
    multiply_slab(m, from + m, rows, 1, {x + from, 1, k}, {x, k, 1}, h + from * k, k);
  });
}

bool cholesky(float* a, int64_t k, int threads) {
  for (int64_t from = 0; from < k; from += kPanel) {
    const int64_t n = std::min(kPanel, k - from), below = k - from - n;
    float* diagonal = a + from * k + from;
    if (!factor_block(diagonal, k, n)) return false;
    const int64_t slabs = (below + kSlab - 1) / kSlab;
    float* rows = a + (from + n) * k + from;
    parallel_for(slabs, threads, [&](int64_t s, int) { solve_block(rows + s * kSlab * k, k, std::min(kSlab, below - s * kSlab), diagonal, k, n, true); });
    parallel_for(slabs, threads, [&](int64_t s, int) {
      const int64_t at = s * kSlab, m = std::min(kSlab, below - at);
      multiply_slab(m, at + m, n, -1, {rows + at * k, k, 1}, {rows, 1, k}, a + (from + n + at) * k + from + n, k);
    });
    for (int64_t i = from; i < from + n; ++i) std::fill(a + i * k + from + n, a + (i + 1) * k, 0.0f);
  }
  return true;
}

void solve_rows(float* b, int64_t m, const float* l, int64_t k, int threads) {
  parallel_for((m + kSlab - 1) / kSlab, threads, [&](int64_t slab, int) {
    const int64_t rows = std::min(kSlab, m - slab * kSlab);
    float* x = b + slab * kSlab * k;
    for (int64_t from = 0; from < k; from += kPanel) {  // x ← x·L⁻ᵀ
      const int64_t n = std::min(kPanel, k - from);
      multiply_slab(rows, n, from, -1, {x, k, 1}, {l + from * k, 1, k}, x + from, k);
      solve_block(x + from, k, rows, l + from * k + from, k, n, true);
    }
    for (int64_t end = k, from; end > 0; end = from) {  // x ← x·L⁻¹
      from = (end - 1) / kPanel * kPanel;
      multiply_slab(rows, end - from, k - end, -1, {x + end, k, 1}, {l + end * k + from, k, 1}, x + from, k);
      solve_block(x + from, k, rows, l + from * k + from, k, end - from, false);
    }
  });
}

}  // namespace infopt
