#include "lib/runtime/cpu/int8_product.h"

#include <algorithm>
#include <cstring>

#include "lib/base/error.h"
#include "lib/base/simd.h"

namespace infopt::cpu {
namespace {

constexpr int64_t kCacheBytes = 192 << 10;  // of rows, so that they and a panel stay in the second-level cache
constexpr int64_t kMostRows = 480, kLeastRows = 48;

Int8WeightSource source_of(const void* w, DType dtype, int64_t k, int64_t n, int64_t k_stride, int64_t n_stride) {
  if (dtype != DType::U8 && dtype != DType::I8) throw Error(ErrorKind::Defect, "packed weights have 8 bits");
  Int8WeightSource source;
  source.data = static_cast<const uint8_t*>(w);
  source.is_unsigned = dtype == DType::U8;
  source.columns = n;
  source.column_stride = n_stride;
  source.channels = k;
  source.channel_stride = k_stride;
  source.tap_offsets = {0};
  return source;
}

/// Pointers to rows [m0, m0 + rows). int8 rows, and those that aren't whole groups of four bytes, are copied.
const uint8_t* const* row_pointers(const Int8Rows& a, int64_t m0, int64_t rows, const Int8Panels& panels) {
  const uint8_t** pointers = static_cast<const uint8_t**>(int8_scratch(Int8Slot::Pointers, static_cast<size_t>(rows) * sizeof(uint8_t*)));
  const uint8_t* first = static_cast<const uint8_t*>(a.data) + m0 * a.stride;
  const int64_t k = panels.run_bytes(), padded = 4 * panels.steps();
  const uint8_t flip = a.dtype == DType::I8 ? 0x80 : 0;
  if (!flip && k == padded) {
    for (int64_t r = 0; r < rows; ++r) pointers[r] = first + r * a.stride;
    return pointers;
  }
  uint8_t* copy = static_cast<uint8_t*>(int8_scratch(Int8Slot::Rows, static_cast<size_t>(rows * padded)));
  for (int64_t r = 0; r < rows; ++r, copy += padded) {
    flip_bytes(first + r * a.stride, copy, k, flip);
    std::memset(copy + k, 0, static_cast<size_t>(padded - k));
    pointers[r] = copy;
  }
  return pointers;
}

}  // namespace

PackedInt8::PackedInt8(const void* w, DType dtype, int64_t k, int64_t n, int64_t k_stride, int64_t n_stride, const int32_t* zero_points)
    : k_(k), panels_(source_of(w, dtype, k, n, k_stride, n_stride), 1, zero_points) {}

void int8_product(const Int8Rows& a, const PackedInt8& w, const Int8Epilogue& epilogue, const void* residual, void* c, int64_t ldc,
                  int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
  const Int8Panels& panels = w.panels();
  const Int8Finish finish(epilogue);
  const size_t first_panel = static_cast<size_t>(n0 / kInt8Panel);
  const size_t last_panel = n1 < 0 ? panels.panels().size() : static_cast<size_t>((n1 + kInt8Panel - 1) / kInt8Panel);
  const Int8Panels::Prepared prepared = panels.prepare(epilogue, a.zero + (a.dtype == DType::I8 ? 128 : 0), first_panel, last_panel);
  const int64_t most = std::clamp(kCacheBytes / std::max<int64_t>(w.k(), 1), kLeastRows, kMostRows) / 24 * 24, whole = 0;
  for (int64_t m = m0; m < m1; m += most) {
    Int8Tile tile;
    tile.count = std::min(most, m1 - m);
    tile.rows = row_pointers(a, m, tile.count, panels);
    tile.taps = &whole;
    tile.steps = panels.steps();
    tile.stride = ldc;
    if (panels.has_zero_points()) {
      int32_t* sums = static_cast<int32_t*>(int8_scratch(Int8Slot::Sums, static_cast<size_t>(tile.count) * sizeof(int32_t)));
      panels.sum_rows(tile, sums);
      tile.row_sums = sums;
    }
    for (size_t p = first_panel; p < last_panel; ++p) {
      const Int8Panel panel = prepared.panel(p);
      tile.dst = int8_place(c, m * ldc + panel.first, finish);
      tile.residual = int8_place(epilogue.residual ? residual : nullptr, m * ldc + panel.first, finish);
      int8_kernels().product(tile, panel, finish);
    }
  }
}

}  // namespace infopt::cpu
