// Where a run's time goes: by operator and by node.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lib/ir/graph.h"
#include "lib/runtime/session.h"

namespace infopt {

struct ProfileRow {
  std::string op, name;  ///< name: of a node; empty where the row is all nodes of the operator
  std::string kernel;    ///< of a node: what its kernel says of itself, and the operators that it computes besides
  double ms = 0;         ///< of one run
  double calls = 0;      ///< in one run
  double share = 0;      ///< of the time in all nodes
};

struct RunProfile {
  double nodes_ms = 0;                       ///< time in nodes, of one run
  double run_ms = 0;                         ///< of one run, what lies between nodes included
  std::vector<ProfileRow> operators, nodes;  ///< the most time first; equals as given, operators by name
};

/// Of times summed over `runs` runs that took `seconds` in all.
RunProfile make_profile(const Graph& graph, const std::vector<Session::NodeTime>& times, int64_t runs, double seconds);

}  // namespace infopt
