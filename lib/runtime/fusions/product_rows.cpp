#include "lib/runtime/fusions/product_rows.h"

#include <algorithm>

#include "lib/base/share.h"

namespace infopt {

void multiply_rows(const cpu::Int8Rows& a, const cpu::PackedInt8& weights, const cpu::Int8Epilogue& epilogue, const void* residual, Tensor& y, int64_t rows) {
  constexpr int64_t kPanel = 64, kRows = 8, kLeastWork = 1 << 18;
  const int64_t n = weights.n(), k = weights.k();
  if (rows == 0 || n == 0) return;
  const int64_t panels = (n + kPanel - 1) / kPanel, blocks = (rows + kRows - 1) / kRows;
  void* to = y.mutable_raw();
  if (panels >= blocks)  // few rows: each thread reads its own part of the weights
    return share_work(panels, std::max<int64_t>(1, kLeastWork / (rows * k * kPanel + 1)), [&](int64_t begin, int64_t end) {
      cpu::int8_product(a, weights, epilogue, residual, to, n, 0, rows, begin * kPanel, std::min(n, end * kPanel));
    });
  share_work(blocks, std::max<int64_t>(1, kLeastWork / (kRows * k * n + 1)), [&](int64_t begin, int64_t end) {
    cpu::int8_product(a, weights, epilogue, residual, to, n, begin * kRows, std::min(rows, end * kRows));
  });
}

}  // namespace infopt
