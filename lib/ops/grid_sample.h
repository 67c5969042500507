// What a GridSample node says.
#pragma once
#include "lib/ops/op.h"

namespace infopt {

enum class GridSampling { Nearest, Linear, Cubic };
enum class GridBorder { Zeros, Border, Reflection };

struct GridSpec {
  GridSampling mode = GridSampling::Linear;
  GridBorder border = GridBorder::Zeros;
  bool align_corners = false;
  /// Throws Error(Malformed) for modes that there aren't.
  static GridSpec of(const KernelSpec& spec);
};

/// The result's shape. Throws Error(Malformed) where the grid doesn't fit.
Shape grid_result(const Tensor& x, const Tensor& grid);

}  // namespace infopt
