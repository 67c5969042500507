// What the outputs of a changed graph keep of those that a graph had.
#pragma once
#include <optional>
#include <vector>

#include "calibration/calibration.h"

namespace infopt {

/// Samples that say what the outputs have left: of a net with so many multiplications a sample few where it is large, up to 64 of a small one.
int64_t judging_samples(double macs, int64_t fewest);
/// Of that graph, with those shapes, where few questions are asked: four times as many.
int64_t judging_samples(const Graph& graph, const std::vector<Observed>& seen, int64_t fewest);
/// Of these those, the data's first, that what is judged shouldn't have seen: up to a quarter of the data, none where there are few.
int64_t held_for_judging(int64_t judging, int64_t samples);

class OutputJudge {
 public:
  /// Runs the graph on the calibration data's first samples.
  /// `held`: the first of them, which what is judged hasn't seen: they judge by themselves, too, and the worse of the two counts.
  OutputJudge(const Graph& graph, Calibration& calibration, int threads, int64_t samples = 4, int64_t held = 0);
  /// Signal to noise of the worst floating output; empty where there is none to compare.
  std::optional<double> decibels(const Graph& changed) const;

 private:
  std::vector<std::vector<Tensor>> run(const Graph& graph) const;

  Calibration& calibration_;
  const int threads_;
  const int64_t held_;
  std::vector<Sample> samples_;
  std::vector<std::vector<Tensor>> expected_;
};

}  // namespace infopt
