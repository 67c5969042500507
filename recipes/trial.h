// One recipe tried on a model, for what searches: made, measured and judged by the gates.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "recipes/job.h"
#include "recipes/tune_space.h"

namespace infopt {

struct Trial {
  TunePoint point;
  std::string recipe;           ///< its canonical YAML's hash
  std::string failure;          ///< why nothing came of it; empty where it was measured
  double size_ratio = 0, latency_ratio = 0, latency_ms = 0;
  std::optional<double> sqnr_db, metric_drop;
  double violation = 0;         ///< how far the gates are missed, relative to their limits and added up; 0: all are met
  double seconds = 0;
  bool met() const { return failure.empty() && violation <= 0; }
};

/// Runs `recipe` as `job` says, and writes the model to `path`. What keeps a recipe from being made or run (an operator that isn't supported, a
/// shape that doesn't fit, a limit, the engine) is the trial's failure; then there is no report. Everything else is thrown.
std::optional<Report> run_trial(Trial& trial, JobSpec job, const Recipe& recipe, const std::string& path);

/// How far gates are missed, relative to their limits and added up.
double violation_of(const std::vector<GateResult>& gates);
std::string hash_of(const Recipe& recipe);
/// Noise over signal of the worst output; 1 where it wasn't measured.
double noise_of(const Trial& trial);

}  // namespace infopt
