// Permutations of axes, and operators that don't mind them.
#pragma once
#include <optional>
#include <vector>

#include "lib/ir/edit.h"

namespace infopt {

/// The permutation of a Transpose (output axis i is input axis p[i]); empty where the node isn't one, or its rank isn't known.
std::optional<std::vector<int64_t>> permutation_of(const Graph& graph, const Node& node);
std::vector<int64_t> inverse(const std::vector<int64_t>& perm);
bool is_identity(const std::vector<int64_t>& perm);

/// Whether f(T(x)…) = T(f(x)…) for the operator, whose inputs that aren't constants have `rank` axes: elementwise ones, and those whose axis
/// attribute can move. Its constants must be broadcast, or have one element where it takes no other.
bool moves_freely(const Graph& graph, const Node& node, int64_t rank);
/// Puts an axis attribute right: what was axis a of the transposed is axis perm[a] of what lay before.
void move_axis(GraphEdit& edit, NodeId node, const std::vector<int64_t>& perm);

Type permuted(const Type& type, const std::vector<int64_t>& perm);
/// The constant's axes, filled up with leading ones to the permutation's rank, in that order.
Tensor permuted(const Tensor& constant, const std::vector<int64_t>& perm);

}  // namespace infopt
