// Rounds the weights of a plan, layer by layer, with what calibration shows of their inputs.
#pragma once
#include <functional>

#include "passes/support/plan_weights.h"

namespace infopt {

/// Takes the codes of layer `index` of the plan, and the weights that they stand for (as the float graph has them). Called in the plan's order.
using TakeCodes = std::function<void(size_t index, const CodedWeights& codes, const std::vector<float>& weights)>;

/// Where `options.sequential`, each layer's inputs are those that the layers before it, already rounded, give, and its weights are fitted to
/// what the float graph's layer makes of its own inputs. Memory holds the moments of layers of one depth, or of some 512 MB at once.
/// Throws Error(Malformed) naming the layer, or the sample, where there is a NaN or an infinity.
/// `prepare` changes the copy of the graph that such inputs are taken from before it runs: by quantizing activations, say.
void round_weights(const Graph& graph, const std::vector<WeightsPlan>& plan, const WeightsOptions& options, PassContext& context, const TakeCodes& take,
                   const std::function<void(GraphEdit&)>& prepare = {});

}  // namespace infopt
