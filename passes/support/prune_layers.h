// Prunes the weights of layers one after the other, with what calibration shows of their inputs.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "passes/pass.h"
#include "passes/support/layers.h"
#include "passes/support/prune_mask.h"

namespace infopt {

struct PruneOptions {
  enum class Score { Magnitude, Wanda, SparseGpt };
  enum class Scope { Layer, Global, Sensitivity };
  PrunePattern pattern;
  Score score = Score::Magnitude;
  Scope scope = Scope::Layer;
  double sparsity = 0.5, damp = 0.01;
  int64_t refit_steps = 0, min_weights = 400;
  bool sequential = true;
  static PruneOptions of(const Options& options);
  bool needs_data() const { return score != Score::Magnitude || refit_steps > 0 || scope == Scope::Sensitivity; }
};
std::string_view name_of(PruneOptions::Score score);

struct LayerToPrune {
  Layer layer;
  double sparsity = 0;
  bool fixed = false;       ///< a group says how many
  bool moments = false;     ///< its inputs can be looked at
  int recurrent = 0;        ///< 1: weights of an LSTM, GRU or RNN; 2: those of its states; the layer's groups are the directions
  size_t report = 0;        ///< its place in the reports
};

/// The layers to prune, in the graph's order, then weights of LSTM, GRU and RNN, and those that bodies of control flow multiply by; and a report
/// of every operator that multiplies. `seen` is empty without data.
std::vector<LayerToPrune> plan_pruning(const Graph& graph, const PassContext& context, const PruneOptions& options, const std::vector<Observed>& seen, std::vector<PrunedLayer>& reports);

/// Where the scope is global or by sensitivity: how much each layer that no group fixes is to lose.
/// Global: one threshold over all layers, on |w| or on the share of its layer's output that a weight makes. Sensitivity: by what each layer,
/// pruned alone to a few levels, does to the outputs on the first samples; noises are taken to add up.
void allocate_sparsity(const Graph& graph, std::vector<LayerToPrune>& plan, const PruneOptions& options, PassContext& context);

/// Takes the weights of the plan's layers away, in `edit`.
/// Throws Error(Malformed) naming the layer, or the sample, where there is a NaN or an infinity.
void prune_layers(GraphEdit& edit, const std::vector<LayerToPrune>& plan, const PruneOptions& options, PassContext& context, std::vector<PrunedLayer>& reports);

}  // namespace infopt
