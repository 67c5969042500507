// What changed in ONNX's operators from version to version, and how a node is rewritten to mean the same.
#pragma once
#include <cstdint>
#include <string>

#include "lib/ir/edit.h"

namespace infopt {

/// Rewrites a node of an operator whose meaning or form changed in `version`; `edit` is its graph's. Most changes only add
/// types, or attributes whose default means what was: for those nothing is done. Knows opsets 8 to kNewestTarget.
/// Throws Error(Unsupported) with the reason where the newer opset can't say what the node means.
void adapt_node(GraphEdit& edit, NodeId node, int64_t version);

}  // namespace infopt
