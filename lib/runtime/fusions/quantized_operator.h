// Operators on codes with their scales among the inputs, as ONNX Runtime's quantizer writes them in its QOperator format, read as the
// DequantizeLinear → operator → QuantizeLinear that they mean.
#pragma once
#include <memory>
#include <unordered_map>

#include "lib/runtime/fusion.h"

namespace infopt {

/// A graph of Q/DQ operators that stands for a node, and perhaps for some that lead to it. Graph inputs are the node's inputs, by position,
/// then the others'; constants are constants in it.
struct QuantizedBody {
  std::shared_ptr<Graph> graph;
  std::unordered_map<ValueId, ValueId> outer;   ///< the outer value of a graph input or constant
  std::unordered_map<NodeId, NodeId> standing;  ///< for what outer node a node of the body stands
};

/// QLinearConv, QLinearMatMul, and of com.microsoft QLinearAdd, -Mul, -Concat, -GlobalAveragePool, -AveragePool, -Sigmoid, -LeakyRelu,
/// -Softmax, -Where and QGemm. None for any other node and for forms that ONNX's operators can't express.
/// `before`: others of these operators, and Pads of codes, that lead to the node, earliest first.
std::optional<QuantizedBody> quantized_body(const Graph& graph, KnownValues& known, const Node& node,
                                            const std::vector<const Node*>& before = {});

}  // namespace infopt
