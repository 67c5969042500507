// Batches of samples run forwards and backwards in parts: the same sums for any number of threads.
#pragma once
#include <cstddef>
#include <functional>
#include <unordered_map>
#include <vector>

#include "lib/autodiff/tape.h"

namespace infopt {

using SamplePlaces = std::vector<size_t>;  ///< samples by number

/// What a batch, or a part of it, comes to.
struct BatchSums {
  std::vector<Tensor> gradients;      ///< by parameter; undefined where nothing was learned
  std::vector<double> noise, signal;  ///< of each output
  /// Noise over signal, the mean of the first `outputs`.
  double ratio(size_t outputs) const;
};

/// `run` adds what samples that run as one come to: up to `most_together` of them, one where samples can't be joined.
BatchSums run_in_parts(const SamplePlaces& samples, size_t most_together, size_t parameters, size_t outputs, int threads, const std::function<void(BatchSums&, const SamplePlaces&)>& run);

/// Whether a batch of the first two samples gives what they give one by one; `feeds` makes what the piece reads of samples.
bool runs_as_one(const Piece& piece, const std::vector<ValueId>& outputs, const std::function<std::unordered_map<ValueId, Laid>(const SamplePlaces&)>& feeds);

}  // namespace infopt
