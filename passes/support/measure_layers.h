// How far a quantized graph is from the float one on a few samples, layer by layer.
#pragma once
#include <optional>
#include <vector>

#include "passes/support/plan_int8.h"

namespace infopt {

/// What the floating outputs have left of the signal.
struct OutputNoise {
  std::vector<std::optional<double>> output_db;  ///< of each output; empty where there is nothing to compare
  std::optional<double> worst_db;
};

/// SQNR beside what calibration saw on its first samples.
OutputNoise output_sqnr(const Graph& quantized, Calibration& calibration, int threads, int64_t samples = 2);

/// By NodeId: whether an output of the graph that has less than `enough` is computed from the node.
std::vector<bool> behind_noisy_outputs(const Graph& graph, const OutputNoise& noise, double enough);

struct LayerNoise {
  std::vector<std::optional<double>> layer_db;  ///< of each layer's output in the whole quantized graph, in the order of the layers
  std::vector<std::optional<double>> local_db;  ///< of each layer's output where its input is the float graph's; empty where not measured
  std::vector<double> added;                    ///< noise over signal that a layer's output has and its input hasn't
};

/// Values of the float graph, and what stands for them in the quantized one; those that stayed aren't listed.
using Became = std::map<ValueId, ValueId>;

/// Runs both graphs on the first sample of the calibration data. `quantized` was made from `graph`, layer by layer as `layers` says.
LayerNoise measure_layers(const Graph& graph, const Graph& quantized, const std::vector<LayerPlan>& layers, const Became& became, Calibration& calibration, bool local = false);

/// Of the candidates (places in the list of layers) those that add most noise, the noisiest first: an eighth, rounded up, and more until the others add no
/// more than `keep` of all the candidates' noise.
std::vector<size_t> noisiest(const LayerNoise& noise, std::vector<size_t> candidates, double keep = 1);

}  // namespace infopt
