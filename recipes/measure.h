// Measuring a model: its outputs beside another's, its task's metric, its latency.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "calibration/calibration.h"
#include "lib/data/dataset.h"
#include "lib/ir/graph.h"
#include "lib/report/report.h"
#include "recipes/recipe.h"

namespace infopt {

/// How the data is to be cut for a model: its inputs' names and shapes, and its fixed batch where it has one: the first input's, unless any leaves its first
/// size open.
DataOptions data_options(const Model& model);

/// The model's file: its bytes and those of the external data that it names.
ModelFile describe_file(const std::string& path, const Model& model);

/// The rows that are data, of an output whose first axis is the batch; a fixed batch's last sample may be padded.
Tensor valid_rows(const Tensor& t, const Sample& sample);

struct Comparison {
  std::vector<OutputReport> outputs;
  std::vector<Metric> metrics;
  int64_t samples = 0;
  std::vector<std::string> obstacles;     ///< what can't be run of either model; empty where both run whole
  std::vector<std::string> not_compared;  ///< outputs that lie behind
  std::vector<std::string> differing;     ///< sentences on outputs whose shapes differ on some samples
};

/// Runs both models over the data, samples side by side on `threads` threads, and compares outputs by position; the
/// recipe's metric is taken where `eval` asks for one. Outputs that infopt can't compute are left out, and with them the metric.
/// Throws Error(Malformed) where the models' outputs differ in number or rank, or a metric's labels are missing.
Comparison compare_models(const Graph& original, const Graph& optimized, DataSet& data, const EvalSpec& eval, int threads, const Progress& progress = {}, const std::string& data_path = {},
                          const std::shared_ptr<const Device>& device = nullptr);

/// Bytes that reading the model's file and running its first sample on one thread adds to this process at its peak; empty
/// where the system doesn't tell (Linux: VmHWM, which it must let us reset).
std::optional<int64_t> measure_peak_memory(const std::string& path, DataSet& data);

struct LatencyPair { Latency original, optimized; };

/// What an external engine's command prints for both files, in turns, in medians: `command` with {model} replaced by a path. Three times each,
/// and four more where the ratio lies within a tenth of one of `limits`.
/// Throws Error(Usage) where the command fails on the original or prints no positive number, Error(Unsupported) where it does on the optimized.
LatencyPair ask_engine(const std::string& command, const std::string& original, const std::string& optimized, const std::vector<double>& limits = {});
/// The same of one file, once: milliseconds.
double ask_engine(const std::string& command, const std::string& model);

/// Latency of one sample on one thread, both models in turns; the first runs are apart.
LatencyPair measure_latency(const Graph& original, const Graph& optimized, DataSet& data, int64_t runs, const std::shared_ptr<const Device>& device = nullptr);

}  // namespace infopt
