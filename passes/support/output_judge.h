// What the outputs of a changed graph keep of those that a graph had.
#pragma once
#include <optional>
#include <vector>

#include "calibration/calibration.h"

namespace infopt {

class OutputJudge {
 public:
  /// Runs the graph on the calibration data's first samples.
  OutputJudge(const Graph& graph, Calibration& calibration, int threads, int64_t samples = 4);
  /// Signal to noise of the worst floating output; empty where there is none to compare.
  std::optional<double> decibels(const Graph& changed) const;

 private:
  std::vector<std::vector<Tensor>> run(const Graph& graph) const;

  Calibration& calibration_;
  const int threads_;
  std::vector<Sample> samples_;
  std::vector<std::vector<Tensor>> expected_;
};

}  // namespace infopt
