// Finds the recipe whose result meets all gates and is fastest, or smallest: points of a search space are made, measured and compared, first those
// that are known to serve, then what comes of the best ones by mutation and crossing.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "recipes/trial.h"

namespace infopt {

struct TuneSpec {
  JobSpec job;                  ///< model, data, threads, engine; its recipe gives data, evaluation, gates and target
  std::string folder;           ///< trials.jsonl, recipe.yaml, model.onnx and front.md stand there, always of the best so far
  bool smallest = false;        ///< of the points that meet the gates the smallest is best, else the fastest
  bool stop_when_met = false;   ///< the first that meets the gates is enough
  double seconds = 0;           ///< no trial begins later, nor one that is expected to end later; 0: no limit
  int64_t trials = 0;           ///< in all, resumed ones included; 0: no limit but that of time
  uint64_t seed = 1;
  std::function<void(const std::string& line)> told;  ///< a line a trial
};

struct TuneResult {
  std::vector<Trial> trials;    ///< in the order in which they were made
  std::optional<size_t> best;   ///< the best that meets the gates, or else what comes nearest; empty where nothing could be made
  std::vector<size_t> front;    ///< those that no other beats in noise, size and latency at once
  int64_t resumed = 0;
};

/// Throws Error(Usage) where the recipe has no gate, or the folder holds trials of another model, data or gates; and what sensitivity throws.
TuneResult tune(const TuneSpec& spec);

/// Positions of the trials that no other is at least as good as in all three (noise where it was measured, size, latency) and better in one.
std::vector<size_t> pareto_front(const std::vector<Trial>& trials);
/// Whether a serves better: met before not met, the lesser violation, then the objective.
bool serves_better(const Trial& a, const Trial& b, bool smallest);

/// How long a trial of the point will take, from those that were measured; 0 where nothing tells.
double expected_seconds(const std::vector<Trial>& trials, const TunePoint& point);

std::string front_markdown(const TuneResult& result);

}  // namespace infopt
