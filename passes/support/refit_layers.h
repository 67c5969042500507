// Repair without labels: the weights that are left are fitted anew, layer after layer, so that with the inputs that a changed graph gives each layer's
// outputs are again what the original's were.
#pragma once
#include <functional>
#include <vector>

#include "passes/pass.h"
#include "passes/support/live_places.h"

namespace infopt {

struct RefitOptions {
  int64_t samples = 0;      ///< at most so many; 0: all
  bool residuals = true;    ///< a layer whose output is added to something makes up for that something's error, too
  const LivePlaces* live = nullptr;  ///< places that count; null: all
  std::function<int64_t(int64_t)> origin = {};  ///< the number of what a sample was made of: all of one kind stand in one half; empty: their own
};

struct RefitReport {
  int64_t layers = 0, kept = 0;  ///< fitted anew, and left since no fit held on samples that it wasn't made from
};

/// `edit`: what was made of `original`, whose nodes and the values that they make keep their ids. `keep` says which positions of a value's axis are still
/// there; empty for all. Ridge regression towards the present weights: Δ = (Yᵀ − WX)Xᵀ·(XXᵀ + λ)⁻¹, biases with it; of some λ the one that holds best on
/// the half of the samples that a fit wasn't made from. Layers whose weights others share, and transposed convolutions, stay.
RefitReport refit_layers(GraphEdit& edit, const Graph& original, const std::function<std::vector<bool>(ValueId value, int64_t axis)>& keep, const RefitOptions& options, PassContext& context);

}  // namespace infopt
