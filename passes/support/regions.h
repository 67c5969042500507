// Which operators run in integers with static ranges: the cheapest labelling of the graph, what it costs to cross between
// float and integer counted (a minimum cut).
#pragma once
#include <map>
#include <vector>

#include "passes/support/costs.h"

namespace infopt {

struct Regions {
  std::vector<bool> integer;       ///< by NodeId; what is absorbed (see absorbed_activation) counts with its producer
  double float_ns = 0, mixed_ns = 0;
  /// False for nodes that were added since.
  bool is_integer(NodeId id) const { return id != kNone && static_cast<size_t>(id) < integer.size() && integer[static_cast<size_t>(id)]; }
};

/// `keep_float` are nodes that must not be integer, `keep_integer` those that must where the target has a kernel.
Regions choose_regions(const Graph& graph, const std::vector<Observed>& seen, const CostModel& costs, const std::vector<bool>& keep_float, const std::vector<bool>& keep_integer);

/// The activations that a node computes with: float inputs that aren't constant. Shape and index inputs don't count.
std::vector<ValueId> data_inputs(const Graph& graph, const Node& node, const std::vector<Observed>& seen);

}  // namespace infopt
