// How long a graph takes on this machine's CPU runtime.
#pragma once
#include <vector>

#include "lib/data/dataset.h"
#include "lib/ir/graph.h"

namespace infopt {

/// Milliseconds of each node by NodeId on one thread, the least of several runs; what runs as one is the node's of it that multiplies most.
std::vector<double> node_times(const Graph& graph, const Sample& sample);

/// The time of a run of each graph on one thread, in turns, the least of each: what else the machine does counts little.
std::pair<double, double> run_times(const Graph& a, const Graph& b, const Sample& sample);

}  // namespace infopt
