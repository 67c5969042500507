// Which rule of a recipe's groups each node falls under.
#pragma once
#include <string>
#include <vector>

#include "lib/ir/graph.h"
#include "passes/group.h"

namespace infopt {

/// What nodes do in the model, by NodeId, from structure alone: "attention" (products of two activations, and the weighted products
/// that feed them or read them through reshapes and the like), "ffn" (other weighted products), "head" (the last of them before an
/// output), "embedding" (Gather of a constant table), "normalization", "convolution"; empty for the rest.
std::vector<std::string> node_roles(const Graph& graph);

/// The rule of each node, by NodeId; null where none fits.
std::vector<const GroupRule*> assign_groups(const Graph& graph, const std::vector<GroupRule>& rules);

/// Whether `text` fits a pattern of literal characters, * (any) and ? (one).
bool matches_glob(const std::string& pattern, const std::string& text);

}  // namespace infopt
