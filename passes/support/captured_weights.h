// Constants that products inside of Loops, Scans and Ifs read as weights.
#pragma once
#include <map>

#include "lib/ir/graph.h"

namespace infopt {

/// Float32 matrices of the graph that a MatMul or Gemm in a node's body reads as its second operand, at any depth, and which of the
/// matrix's axes are the product's output channels. `node` reads them as captures.
std::map<ValueId, int64_t> captured_weights(const Graph& graph, const Node& node);

}  // namespace infopt
