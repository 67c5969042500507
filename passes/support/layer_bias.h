// Where a layer's bias is.
#pragma once
#include <optional>
#include <vector>

#include "lib/ir/edit.h"
#include "passes/support/layers.h"

namespace infopt {

/// Of a Conv, ConvTranspose or Gemm its third input, which may be left out; of a MatMul the constant of the Add that alone reads it.
struct LayerBias {
  ValueId output = kNone;       ///< the layer's output, the bias included
  NodeId node = kNone;          ///< what adds it; kNone where there is nowhere to put one
  size_t input = 2;
  std::vector<double> values;   ///< one an output channel, Gemm's beta included; zeros where there is none
};
LayerBias find_bias(const Graph& graph, const Layer& layer);
/// Another constant, or what makes one, in its place, one an output channel; Gemm's beta becomes 1.
void set_bias(GraphEdit& edit, const LayerBias& bias, ValueId value);
/// Nothing where there is nowhere to put it.
void write_bias(GraphEdit& edit, const Layer& layer, const LayerBias& bias, const std::vector<double>& values);

/// Adds one number for each output channel to the bias. Nothing where there is nowhere to put it.
void shift_bias(GraphEdit& edit, const Layer& layer, const std::vector<float>& shift);

}  // namespace infopt
