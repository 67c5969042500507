// A graph run over the calibration samples piece by piece, for what changes the graph as it goes (rounding layer after layer) or asks about
// many places in it (sensitivity): what lies before a place is computed once, not once a question.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "calibration/calibration.h"

namespace infopt {

struct StagedOptions {
  int64_t samples = 0;          ///< at most so many of the data's; 0: all
  int64_t skip = 0;             ///< the data's first, which something else is kept for
  int threads = 1;              ///< samples side by side
  int64_t memory = 256 << 20;   ///< bytes of held tensors; more go into a temporary file
};

/// Holds, for each sample, the values that were computed and that something ahead still reads. Quantized activations are held as codes.
/// The graph may be changed between calls where it hasn't been computed yet: constants, nodes and values ahead, but not ids of what is held.
class StagedRun {
 public:
  /// `targets`: every value that advance() or peek() will be asked for, each once; nothing that only others need is held.
  /// Throws what the data set throws.
  StagedRun(const Graph& graph, Calibration& calibration, std::vector<ValueId> targets, StagedOptions options = {});
  ~StagedRun();

  int64_t samples() const;
  /// The held tensors' bytes in memory, and in the temporary file.
  int64_t held() const;
  int64_t spilled() const;

  /// Called by up to `threads` threads at once, samples in any order; `values` in the order asked for.
  using Visit = std::function<void(int64_t sample, const std::vector<Tensor>& values)>;
  /// Computes the values for every sample, and holds what it computed on the way and the targets that are left will read.
  /// Throws Error(Unsupported) where an operator can't be run; Error(Io) where the temporary file can't be written.
  /// Those of `again` stay targets: they are asked for later, too.
  void advance(const std::vector<ValueId>& values, const Visit& visit, const std::vector<ValueId>& again = {});
  /// advance() won't be asked for these after all: what only they need is given up when it is called next.
  void forget(const std::vector<ValueId>& targets);
  /// As advance() without holding anything: to try a change of the graph, `on` being a changed copy with the same ids up to here, or the graph itself.
  void peek(const Graph& on, const std::vector<ValueId>& values, const Visit& visit) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The graph with `given` as inputs of it, whatever made them; ids stay.
std::shared_ptr<Graph> graph_behind(const Graph& graph, const std::vector<ValueId>& given);

}  // namespace infopt
