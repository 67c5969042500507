// Runs of nodes as a Chrome trace: chrome://tracing and Perfetto open it.
#pragma once
#include <string>
#include <vector>

#include "lib/ir/graph.h"
#include "lib/runtime/session.h"

namespace infopt {

/// JSON of the Trace Event Format's object form: one complete event ("ph": "X", times in microseconds) for each event, named by its node,
/// its category the operator, its arguments the operator and the first output's shape; a metadata event names each thread.
std::string chrome_trace(const Graph& graph, const std::vector<Session::NodeEvent>& events);

}  // namespace infopt
