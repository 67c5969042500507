// Float32 products of a few rows, as token generation has them: all rows' sums stay in registers, and the weights are read once, in the order
// in which they lie.
#pragma once
#include <cstdint>
#include <mutex>
#include <vector>

#include "lib/ops/op.h"

namespace infopt::cpu {

/// Weights in panels: panel p holds columns [p·width, p·width + width) of all depth rows, a row's elements following each other; panels are
/// panel_floats apart, and the last is filled up.
struct WeightPanels {
  const float* data = nullptr;
  int64_t width = 0, panel_floats = 0;
};

/// Constant weights that a kernel packs itself, at the first run.
class PackedPanels {
 public:
  /// Of columns × depth weights in rows, one for each column, as recurrent nets have them: always the same ones.
  WeightPanels get(const float* weights, int64_t columns, int64_t depth);

 private:
  std::mutex mutex_;
  std::vector<float> data_;
};

struct FewRows {
  const float* a = nullptr;  ///< rows × depth, dense
  int64_t rows = 0, depth = 0, columns = 0;
  WeightPanels weights;
  const float* bias = nullptr;  ///< one row, or null
  PostActivation post = {};     ///< none, or one that products have
  float* y = nullptr;           ///< rows × columns, dense
};

/// False where so many rows by so wide a panel don't fit this processor's registers: oneDNN is as good there.
bool takes_few_rows(int64_t rows, int64_t panel_width);
/// Columns of the panels that PackedPanels makes.
int64_t widest_panel();
/// y = post(a·B + bias), shared among the run's threads; the bits don't depend on how many.
void multiply_few_rows(const FewRows& product);

}  // namespace infopt::cpu
