// `infopt quantize --recipe auto`: points of the tuner's space in a fixed order, the cheapest first, until one meets all gates.
#pragma once
#include <functional>
#include <string>

#include "recipes/job.h"

namespace infopt {

struct AutoSpec {
  JobSpec job;         ///< its recipe is one to search from
  double seconds = 0;  ///< no attempt begins later; 0: no limit
  std::function<void(const std::string& line)> told;  ///< a line an attempt
};

/// The report of the first attempt that meets all gates, or of the one that misses least; `search` in it holds all attempts, `recipe` the plain recipe
/// that makes the same bytes. The model is at the job's output, or isn't where a gate is missed and the job wants none then.
/// An attempt changes the best one before it, by what can help the gates that are missed. Gates on latency and memory let the clock choose;
/// without them the choice is the same in every run.
/// Throws Error(Usage) where the recipe has no gate or no step quantize_int8, or the engine fails on the model; and what run_job() throws.
Report quantize_by_search(const AutoSpec& spec);

}  // namespace infopt
