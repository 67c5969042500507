// Writes weights of few bits into a graph.
#pragma once
#include <map>

#include "lib/ir/edit.h"
#include "passes/support/layers.h"
#include "passes/support/weight_grid.h"

namespace infopt {

class WeightsWriter {
 public:
  explicit WeightsWriter(GraphEdit& edit) : edit_(edit) {}

  /// The layer reads DequantizeLinear of its codes, in the stored order. The weights' type is that of the scales.
  void write_dequantized(const Layer& layer, const CodedWeights& codes);
  /// The layer, a product, becomes com.microsoft's MatMulNBits, with what a Gemm adds behind it. The grid has blocks.
  void write_nbits(const Layer& layer, const CodedWeights& codes);

 private:
  GraphEdit& edit_;
};

}  // namespace infopt
