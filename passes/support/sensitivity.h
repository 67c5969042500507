// What each quantizable place costs the outputs, alone: a layer's weights or a value that layers read, rounded while everything else
// stays in float.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "calibration/calibration.h"
#include "passes/profile.h"

namespace infopt {

/// How a place is rounded: "w8", "w4" (per output channel), "w4b32" (blocks of 32 along k, products only), "w2b32" …; "a8", "a16" (one range).
struct Precision {
  std::string name;
  bool weights = true;
  int bits = 8;
  int64_t block = 0;
};
/// Throws Error(Usage) saying which forms there are.
Precision parse_precision(const std::string& name);

struct Damage {
  Precision precision;
  std::optional<double> sqnr_db;  ///< the worst output's signal to noise over all samples; empty where it can't be computed
  std::optional<double> drop;     ///< how much worse the task's figure is than the float graph's; empty where none was asked for
  std::optional<double> kl;       ///< mean Kullback–Leibler divergence, in nats, of the softmax over the last axis of the first float output
};

struct Site {
  std::string name;            ///< of the node, or of the value
  bool weights = true;
  std::vector<std::string> readers;  ///< layers that read the value; of weights: the layer
  std::vector<std::string> patterns; ///< what a recipe's groups call them: their nodes, or the weights of those without a name
  std::vector<Damage> damage;  ///< one each precision asked for that fits
  std::vector<std::string> causes;   ///< with the numbers that show them
};

/// How much worse than the float graph's the task's figure is for `rounded`; both are [sample][output of the graph].
using TaskDrop = std::function<double(const std::vector<std::vector<Tensor>>& reference, const std::vector<std::vector<Tensor>>& rounded)>;

struct SensitivityOptions {
  std::vector<Precision> precisions;
  int64_t samples = 8;         ///< that outputs are compared on, 0: all there are; statistics are of all
  Calibration* compared = nullptr;  ///< whose data outputs are compared on; null: the calibration's own
  TaskDrop task = {};          ///< may be null
  std::string method = "minmax";
  double percentile = 99.99;
  int threads = 1;
  std::function<void(int64_t done, int64_t total)> progress = {};  ///< layers
};

/// In the graph's order: each layer's weights, and before them the value that it reads. Nothing that precedes a site is computed more than once.
/// Throws what calibration and the task's figure throw; Error(Unsupported) where the latter is asked for and an output can't be computed.
std::vector<Site> find_sensitivity(const Graph& graph, Calibration& calibration, const Profile& profile, const SensitivityOptions& options);

/// The recipe's `groups` that keep in float (activations in 16 bits where a16 was measured and mends them) the sites which make most of the noise at `precision`, so that what is left stays above
/// `target_db`; empty where nothing has to be kept. Noises are taken to add up.
std::string groups_that_mend(const std::vector<Site>& sites, const std::vector<std::string>& precisions, double target_db);

}  // namespace infopt
