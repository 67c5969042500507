// Gates: limits on a report's figures that stop a deployment. One row of a table each.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "lib/report/report.h"

namespace infopt {

/// A limit that a recipe sets.
struct GateLimit {
  std::string name;  ///< of a GateDef
  double limit = 0;
};

/// What has to be measured before a gate can be judged.
enum class GateNeed { Comparison, Metric, Size, Latency, Memory, Layers };

struct GateFigure {
  std::optional<double> value;
  std::string of;  ///< which output or metric it is of, where there may be several
};

struct GateDef {
  std::string name, help;
  bool at_most;  ///< the limit is the largest value that passes; else the smallest
  std::optional<double> least, most;  ///< what a limit may be
  bool above_least;                   ///< the limit must be more than `least`
  GateNeed need;
  std::string what, unit;             ///< for messages: "SQNR", " dB"
  GateFigure (*figure)(const Report&);
};

/// All gates, in the order in which reports list them.
const std::vector<GateDef>& all_gates();
bool needs(const std::vector<GateLimit>& gates, GateNeed need);
/// One result a limit, in the limits' order. A gate whose figure wasn't measured, or isn't a number, is not met.
/// Throws Error(Defect) for a name that isn't in the table.
std::vector<GateResult> evaluate_gates(const std::vector<GateLimit>& gates, const Report& report);

}  // namespace infopt
