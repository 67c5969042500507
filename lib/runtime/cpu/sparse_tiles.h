// Inner loops of float32 products with weights that are mostly zero. The instruction set is the one of float_tiles.h.
#pragma once
#include <cstdint>

namespace infopt::cpu {

constexpr int64_t kSparsePanel = 16;   ///< columns that PanelTile and TableTile make at a time
constexpr int64_t kTableDepth = 32;    ///< activations that a step of TableTile chooses from

/// Columns of sums for a tile of rows that lie side by side: one broadcast weight times a run of rows for each weight that isn't zero.
struct ListTile {
  const float* x = nullptr;           ///< depth × tile rows
  const float* values = nullptr;      ///< of all columns, column after column
  const uint16_t* offsets = nullptr;  ///< into x, one for each value
  const uint32_t* ends = nullptr;     ///< ends[c]: behind column c's values; ends[-1]: where column 0's begin
  int64_t columns = 0, vectors = 0;   ///< vectors: of rows that are in use
  const float* bias = nullptr;        ///< sums = bias[c] or zeros, plus the products; else
  bool adds = false;                  ///< sums += products
  float* sums = nullptr;              ///< columns × tile rows
};

/// 16 columns of rows × depth times depth × 16, of which only the rows in `depths` are there.
struct PanelTile {
  const float* x = nullptr;
  int64_t x_stride = 0, rows = 0;
  const float* values = nullptr;     ///< count × 16
  const int32_t* depths = nullptr;   ///< count
  int64_t count = 0;
  const float* bias = nullptr;       ///< 16, or null
  float* y = nullptr;                ///< rows × 16
  int64_t y_stride = 0;
  bool adds = false;                 ///< y += instead of y =
};

/// The same, each column having its own depths: steps of 16 weights, each with the place of its activation among the 32 of its block.
struct TableTile {
  const float* x = nullptr;          ///< rows × blocks·32
  int64_t x_stride = 0, rows = 0, blocks = 0;
  const uint8_t* steps = nullptr;    ///< of each block
  const float* values = nullptr;     ///< steps × 16
  const uint8_t* places = nullptr;   ///< steps × 16
  const float* bias = nullptr;       ///< 16, or null
  float* y = nullptr;                ///< rows × 16
  int64_t y_stride = 0;
  bool adds = false;
};

struct SparseTiles {
  int64_t lanes;                              ///< floats of a vector
  int64_t list_rows, panel_rows, table_rows;  ///< of a tile, at most; table_rows is 0 where the instruction set has no such loop
  void (*lists)(const ListTile&);
  void (*panels)(const PanelTile&);
  void (*tables)(const TableTile&);
  /// lanes × lanes: to[j·to_stride + i] = from[i][j]
  void (*transpose)(const float* const* from, float* to, int64_t to_stride);
};

/// Null where the instruction set in use (float_tiles) has none.
const SparseTiles* sparse_tiles();

// Of the single instruction sets.
const SparseTiles& avx2_sparse_tiles();
const SparseTiles& avx512_sparse_tiles();

}  // namespace infopt::cpu
