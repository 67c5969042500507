// What quantize_weights decides before it changes anything: which weights, in which format, rounded how.
#pragma once
#include <string>
#include <vector>

#include "passes/pass.h"
#include "passes/support/layers.h"
#include "passes/support/prune_mask.h"
#include "passes/support/weight_grid.h"

namespace infopt {

struct WeightsPlan {
  Layer layer;
  WeightFormat format;
  size_t report = 0;        ///< its place in the reports
  bool moments = false;     ///< rounded by what its inputs are like, not to nearest
};

struct WeightsOptions {
  WeightFormat format;
  bool gptq = false, awq = false;
  GridFit fit = GridFit::LeastSquares;
  bool act_order = true, sequential = true, nbits = false;
  double damp = 0.05;
  bool fits_outputs = true; ///< sequential: weights are fitted to the float layer's output before they are rounded
  bool biases = false;      ///< biases take up what rounding does to the mean of a layer's output, and weights are rounded about the inputs' means
  bool weighs_places = true;  ///< places of a layer's output count by what they cost the model's outputs
  int64_t hold_out = 0;     ///< samples, the first, that aren't rounded by
  int64_t min_weights = 400;
  bool int8_tables = true;
  PrunePattern pattern;
  double sparsity = 0;  ///< gptq: what goes in the same sweep
  static WeightsOptions of(const Options& options);
  bool needs_data() const { return gptq || awq; }
};

/// The type of that name (int4, uint8, …); Undefined for others.
DType weight_type(const std::string& name);
/// "int4, blocks of 32", "uint8, per channel".
std::string describe(const WeightFormat& format);

/// The layers to quantize, in the graph's order, and a report of every layer. `seen` says which inputs can be computed; empty without data.
std::vector<WeightsPlan> plan_weights(const Graph& graph, const PassContext& context, const WeightsOptions& options, const std::vector<Observed>& seen, std::vector<LayerReport>& reports);

}  // namespace infopt
