// Constant int8 weights of a product or convolution, packed once into the panels that the kernels read.
#pragma once
#include <memory>
#include <vector>

#include "lib/runtime/cpu/int8_kernels.h"

namespace infopt::cpu {

/// Where a weight lies: column n of a group, channel c, and a tap, as an element of `data` (int8, or uint8 whose values are lowered by
/// 128).
struct Int8WeightSource {
  const uint8_t* data = nullptr;
  bool is_unsigned = false;
  int64_t columns = 0, column_stride = 0;    ///< of all groups together
  int64_t channels = 0, channel_stride = 0;  ///< of one group
  std::vector<int64_t> tap_offsets;          ///< elements
  int64_t groups = 1;
};

/// One step of a panel multiplies 4 neighbouring bytes of a row. A run is what lies side by side in memory: the channels of one tap, or of
/// several taps that follow each other.
class Int8Panels {
 public:
  /// Taps [r·taps_in_run, (r+1)·taps_in_run) form run r: their channels follow each other without a gap. `zero_points`: one a column, null:
  /// 0. Small groups are joined until they fill a vector: the weights between them are 0.
  Int8Panels(const Int8WeightSource& source, int64_t taps_in_run, const int32_t* zero_points);

  struct Panel {
    int64_t group, first, columns, vectors, at;  ///< group: of the joined ones; `at`: first byte of its weights
  };
  const std::vector<Panel>& panels() const { return panels_; }
  int64_t groups() const { return groups_; }  ///< after joining
  int64_t group_channels() const { return group_channels_; }
  int64_t columns() const { return columns_; }
  int64_t runs() const { return runs_; }
  int64_t steps() const { return steps_; }          ///< of one run
  int64_t run_bytes() const { return run_bytes_; }  ///< ≤ 4·steps
  bool has_zero_points() const { return zeros_ != nullptr; }

  /// The columns' scales and everything that a sum starts from: bias, and what the activations' zero point (as uint8) contributes.
  /// Only for panels [first_panel, last_panel). The panels it gives point into this thread's memory (Int8Slot::Columns) and into this
  /// object, until the next prepare.
  struct Prepared {
    const Int8Panels* owner;
    const int32_t* start;
    const float* scale;
    Int8Panel panel(size_t i) const;
  };
  Prepared prepare(const Int8Epilogue& epilogue, int32_t zero, size_t first_panel, size_t last_panel) const;
  /// Σ of each row's activations, where there are zero points.
  void sum_rows(const Int8Tile& tile, int32_t* sums) const { int8_kernels().sum_rows(tile, run_bytes_, sums); }

 private:
  void pack(const Int8WeightSource& source, int64_t taps_in_run, int64_t joined);
  void pack_panel(const Int8WeightSource& source, int64_t taps_in_run, int64_t joined, const Panel& panel);
  void place_zeros(const std::vector<int32_t>& zeros);

  std::vector<Panel> panels_;
  std::shared_ptr<void> weights_, zeros_;  ///< zeros_: 64 a panel, null where all are 0
  std::vector<int32_t> sums_;
  int64_t groups_ = 1, group_channels_ = 0, columns_ = 0, runs_ = 0, steps_ = 0, run_bytes_ = 0;
};

}  // namespace infopt::cpu
