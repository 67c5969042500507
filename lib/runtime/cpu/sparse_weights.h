// Constant float32 weights of a product, of which many are zero, in the forms that the loops of sparse_tiles.h read. Each form holds all that
// isn't zero, so that the dense weights can be made from any.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "lib/base/memory.h"

namespace infopt::cpu {

/// An array among what outlives a run: there pages are large, which matters to weights that are read once in each run.
template <class T> class LastingArray {
 public:
  LastingArray() = default;
  explicit LastingArray(const std::vector<T>& from) : memory_(allocate_lasting(std::max<size_t>(1, from.size()) * sizeof(T))), size_(from.size()) {
    std::copy(from.begin(), from.end(), static_cast<T*>(memory_.get()));
  }
  const T* data() const { return static_cast<const T*>(memory_.get()); }
  size_t size() const { return size_; }
  T operator[](size_t i) const { return data()[i]; }

 private:
  std::shared_ptr<void> memory_;
  size_t size_ = 0;
};

/// Where element (k, n) of a depth × columns matrix lies.
struct WeightView {
  const float* data = nullptr;
  int64_t depth = 0, columns = 0, depth_stride = 0, column_stride = 0;
  float at(int64_t k, int64_t n) const { return data[k * depth_stride + n * column_stride]; }
};

/// What the forms would hold, each as a share of all weights.
struct SparseCounts {
  double kept = 1;    ///< weights that aren't zero
  double panels = 1;  ///< rows of 16 columns with a weight that isn't zero
  double slots = 1;   ///< of TableTile: in each 32 rows of 16 columns, 16 times the most that a column has
};
SparseCounts count_kept(const WeightView& weights);

/// By parts of the depth that leave a tile's activations in the nearest cache, within them by columns.
struct SparseLists {
  int64_t tile_rows = 0, part = 0;
  LastingArray<float> values;
  LastingArray<uint16_t> offsets;  ///< row in its part · tile_rows
  LastingArray<uint32_t> ends;     ///< 0, then behind each column of each part
};
SparseLists pack_lists(const WeightView& weights, int64_t tile_rows);

/// By 16 columns: the rows in which any of them has a weight.
struct SparsePanels {
  LastingArray<float> values;
  LastingArray<int32_t> depths;
  LastingArray<uint32_t> ends;  ///< 0, then behind each 16 columns
};
SparsePanels pack_panels(const WeightView& weights);

/// By 16 columns and 32 rows.
struct SparseTables {
  int64_t blocks = 0;  ///< of 32 rows
  LastingArray<uint8_t> steps;
  LastingArray<float> values;
  LastingArray<uint8_t> places;
  LastingArray<uint32_t> ends;  ///< steps; 0, then behind each 16 columns
};
SparseTables pack_tables(const WeightView& weights);

// Back to depth × columns; `to` holds zeros.
void unpack(const SparseLists& form, const WeightView& shape, float* to);
void unpack(const SparsePanels& form, const WeightView& shape, float* to);
void unpack(const SparseTables& form, const WeightView& shape, float* to);

}  // namespace infopt::cpu
