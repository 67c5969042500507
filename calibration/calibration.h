// Runs a model over calibration data and keeps statistics. The unit is one sample on one thread, samples side by side, so
// that the result is the same for any number of threads and any batch size.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "calibration/partial_session.h"
#include "calibration/statistics.h"
#include "lib/data/dataset.h"
#include "lib/ir/graph.h"

namespace infopt {

/// Element type and shape of a value in the first sample's run; shape is empty and dtype Undefined where it wasn't computed.
struct Observed {
  DType dtype = DType::Undefined;
  Shape shape;
};

/// Told after each sample: how many are done, of how many.
using Progress = std::function<void(int64_t done, int64_t total)>;

struct CalibrationOptions {
  int threads = 1;
  Progress progress;
  std::shared_ptr<const Device> device = nullptr;  ///< what collect() runs on; null: the CPU
};

class Calibration {
 public:
  Calibration(std::shared_ptr<DataSet> data, CalibrationOptions options) : data_(std::move(data)), options_(std::move(options)) {}

  /// What every value of the graph (not of its bodies) was in a run of the first sample. By ValueId; Undefined where infopt can't
  /// compute it, see obstacles().
  std::vector<Observed> observe(const Graph& graph);
  /// The statistics of the requested values over all samples; saved ones (see reuse) where they fit graph and data.
  /// Throws Error(Malformed) naming tensor and sample where there is a NaN or an infinity.
  const StatisticsSet& collect(const Graph& graph, const std::vector<CollectRequest>& requests);
  /// Statistics that an earlier run saved. collect() throws Error(Usage) where they are of another model or other data.
  void reuse(StatisticsSet saved) { saved_ = std::move(saved); }
  /// Statistics will be saved: collect() says what they are of. Hashes the model's constants and the data's files.
  void key_statistics() { keyed_ = true; }
  bool reused() const { return saved_.has_value(); }
  /// Runs what can be run of a graph, taking the first sample as a probe where observe() found something that can't be.
  PartialSession session(const Graph& graph, SessionOptions options = {});
  /// What observe() found that can't be run by infopt, and why; empty where everything can.
  const std::vector<std::string>& obstacles() const { return obstacles_; }
  /// The graph's outputs on the first few samples, as collect() met them (undefined where they can't be computed); empty where saved
  /// statistics were used.
  const std::vector<std::vector<Tensor>>& reference_outputs() const { return reference_; }
  /// The first samples of the data, at most so many.
  std::vector<Sample> first_samples(int64_t count);
  /// The last collect()'s result.
  const StatisticsSet& statistics() const { return statistics_; }
  DataSet& data() { return *data_; }

 private:
  std::shared_ptr<DataSet> data_;
  CalibrationOptions options_;
  std::optional<StatisticsSet> saved_;
  bool keyed_ = false;
  StatisticsSet statistics_;
  std::vector<std::string> obstacles_;
  std::vector<std::vector<Tensor>> reference_;
};

/// A hash of what the graph computes: operators, attributes, wiring and constants, not names. 32 hexadecimal digits.
std::string content_key(const Graph& graph);

}  // namespace infopt
