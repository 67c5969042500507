// The bodies that ONNX's standard defines for operators that are functions of others.
#pragma once
#include <memory>

#include "lib/ir/graph.h"

namespace infopt {

/// The standard's body of the node's operator, at the graph's opset: input i of the body is the node's input i (unused where
/// the node leaves it out), output i the node's output i. Null where the operator is no function or has a graph
/// among its attributes, or where its body depends on input types that aren't known.
std::shared_ptr<Graph> expand_function(const Graph& graph, NodeId id);

}  // namespace infopt
