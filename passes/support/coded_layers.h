// Layers of a quantized graph whose weights are codes behind a DequantizeLinear.
#pragma once
#include <optional>
#include <vector>

#include "lib/ir/edit.h"
#include "passes/support/soft_rounding.h"

namespace infopt {

/// A Conv, ConvTranspose, Gemm or MatMul over DequantizeLinear(constant codes, constant scales, constant zero points).
struct CodedLayer {
  NodeId node = kNone;
  ValueId weights = kNone;  ///< what the DequantizeLinear gives out
  ValueId codes = kNone;
  CodeGrid grid;
  ValueId bias = kNone;     ///< the layer's bias, or the constant that an Add behind it adds; kNone where there is none, or others read it
  Tensor bias_values;       ///< as float32
};

/// Empty where the node isn't one, or another node reads its weights or codes.
std::optional<CodedLayer> coded_layer(const Graph& graph, NodeId node);
/// The layer's codes, in the weights' stored order.
void set_codes(GraphEdit& edit, const CodedLayer& layer, const std::vector<int32_t>& codes);
/// The layer's bias, rounded to its own scales where it is codes.
void set_bias(GraphEdit& edit, const CodedLayer& layer, const Tensor& bias);

}  // namespace infopt
