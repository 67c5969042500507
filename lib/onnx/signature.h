// Which element types ONNX's standard lets an operator's inputs and outputs have.
#pragma once
#include <optional>
#include <vector>

#include "lib/ir/graph.h"

namespace infopt {

struct Signature {
  /// The element types that each of the node's inputs and outputs may have as a tensor; one entry for each of the node's.
  std::vector<std::vector<DType>> inputs, outputs;
};

/// The signature of the node's operator at its graph's opset; empty where the standard doesn't have the operator, or not with so many
/// inputs or outputs.
std::optional<Signature> signature_of(const Graph& graph, const Node& node);

}  // namespace infopt
