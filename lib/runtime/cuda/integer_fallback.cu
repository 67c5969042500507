// Products of 8-bit integers with few rows: each warp streams a row of the weights once, for eight rows of A.
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/libraries.h"

namespace infopt::cuda {
namespace {

constexpr int kRows = 8, kWarps = 8;

/// Lanes take turns along k, 16 bytes each.
__global__ void multiply_rows(const int8_t* a, const int8_t* b, int32_t* c, const int32_t* added, int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc, int64_t stride_a, int64_t stride_b,
                              int64_t stride_c) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (column >= n) return;
  const int64_t batch = blockIdx.z;
  const int8_t* weights = b + batch * stride_b + column * ldb;
  for (int64_t first = static_cast<int64_t>(blockIdx.y) * kRows; first < m; first += static_cast<int64_t>(gridDim.y) * kRows) {
    const int rows = m - first < kRows ? static_cast<int>(m - first) : kRows;
    int sums[kRows] = {};
    for (int64_t i = lane * 16; i < k; i += 512) {
      const int4 w = *reinterpret_cast<const int4*>(weights + i);
      for (int r = 0; r < kRows; ++r) {
        if (r >= rows) break;
        const int4 x = *reinterpret_cast<const int4*>(a + batch * stride_a + (first + r) * lda + i);
        sums[r] = __dp4a(x.w, w.w, __dp4a(x.z, w.z, __dp4a(x.y, w.y, __dp4a(x.x, w.x, sums[r]))));
      }
    }
    for (int r = 0; r < kRows; ++r) {
      const int sum = warp_sum(sums[r]);
      if (lane != r || r >= rows) continue;
      const int64_t at = batch * stride_c + (first + r) * ldc + column;
      c[at] = added ? static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(added[at])) : sum;
    }
  }
}

}  // namespace

void multiply_integers(Stream& stream, const MatrixProduct& p, const void* a, const void* b, void* c, const void* added) {
  const int64_t down = blocks_for(p.m, kRows);
  for (int64_t i = 0; i < p.batch; i += 65535) {
    const int64_t count = p.batch - i < 65535 ? p.batch - i : 65535;
    INFOPT_LAUNCH(stream, multiply_rows, {blocks_for(p.n, kWarps), down < 65535 ? down : 65535, count}, 32 * kWarps, 0, static_cast<const int8_t*>(a) + i * p.stride_a,
                  static_cast<const int8_t*>(b) + i * p.stride_b, static_cast<int32_t*>(c) + i * p.stride_c, p.beta != 0 ? static_cast<const int32_t*>(added) + i * p.stride_c : nullptr, p.m, p.n, p.k,
                  p.lda, p.ldb, p.ldc, p.stride_a, p.stride_b, p.stride_c);
  }
}

}  // namespace infopt::cuda
