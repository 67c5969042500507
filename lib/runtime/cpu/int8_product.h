// Products of 8-bit matrices with exact int32 sums, and what follows them.
#pragma once
#include "lib/base/tensor.h"
#include "lib/runtime/cpu/int8_epilogue.h"
#include "lib/runtime/cpu/int8_panels.h"

namespace infopt::cpu {

/// The rows a[m, 0…K) of a product's left side.
struct Int8Rows {
  const void* data = nullptr;
  DType dtype = DType::U8;  ///< U8 or I8
  int64_t stride = 0;       ///< from row to row, in elements, at least K
  int32_t zero = 0;
};

/// Weights w[k, n], U8 or I8, at w[k·k_stride + n·n_stride]. Packed once; shared by threads.
class PackedInt8 {
 public:
  /// `zero_points`: one a column, null: 0.
  PackedInt8(const void* w, DType dtype, int64_t k, int64_t n, int64_t k_stride, int64_t n_stride, const int32_t* zero_points = nullptr);
  int64_t k() const { return k_; }
  int64_t n() const { return panels_.columns(); }
  const Int8Panels& panels() const { return panels_; }

 private:
  int64_t k_;
  Int8Panels panels_;
};

/// Rows [m0, m1) of c[M, N] = epilogue(Σ over k of (a[m,k] − za)·(w[k,n] − zw[n])), where columns [n0, n1) only: n0 is a multiple of 64,
/// n1 is too or is N (−1: N). c and the residual point to row 0, column 0; their rows are ldc elements apart.
/// Every cut into rows and columns gives the same bits.
void int8_product(const Int8Rows& a, const PackedInt8& w, const Int8Epilogue& epilogue, const void* residual, void* c, int64_t ldc,
                  int64_t m0, int64_t m1, int64_t n0 = 0, int64_t n1 = -1);

}  // namespace infopt::cpu
