// A body's nodes in place of the node that has it.
#pragma once
#include <vector>

#include "lib/ir/edit.h"

namespace infopt {

/// Puts the nodes and constants of `body`, a graph in an attribute of node `id` that runs exactly once, in the node's place, with `inputs`
/// for the body's inputs, and removes the node. Values lose their names, which need only be unique in the body; outputs of the
/// graph keep theirs.
void inline_body(GraphEdit& edit, NodeId id, const Graph& body, const std::vector<ValueId>& inputs);

}  // namespace infopt
