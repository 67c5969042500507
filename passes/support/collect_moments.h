// The moments of layers' inputs over the calibration data.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "passes/pass.h"
#include "passes/support/input_moments.h"
#include "passes/support/place_weights.h"

namespace infopt {

/// Layers that see the same input through the same window.
struct SharedInput {
  ValueId input = kNone;
  std::vector<size_t> layers;  ///< places in the list of layers
  int64_t depth = 0;           ///< listed layers on the longest way to the input
  int64_t bytes = 0;           ///< of its moments
  std::unique_ptr<InputMoments> moments;
};

/// Of the layers that InputMoments can see, by depth, then in the graph's order; those of one value follow each other.
std::vector<SharedInput> find_shared_inputs(const Graph& graph, const std::vector<Layer>& layers);

/// How many of the inputs, from the first on, are collected together: up to some 512 MB of moments; where `by_depth`, of one depth only.
size_t together(std::span<const SharedInput> inputs, bool by_depth);

/// Runs the graph over the data once, from one place that is asked about to the next.
class MomentsRun {
 public:
  /// `quantized` is null, or `graph` with other weights in it: then H is of its values, and C of both graphs'. It may be changed between calls
  /// of collect(), ahead of what was asked for. All of these must outlive this.
  /// The data's first `skip` samples are left out. `weights`: how much places count; null: alike.
  MomentsRun(const Graph& graph, const Graph* quantized, const std::vector<Layer>& layers, std::span<const SharedInput> inputs, PassContext& context, int64_t skip = 0,
             const PlaceWeights* weights = nullptr);
  ~MomentsRun();
  /// Fills in `moments` of the next inputs, in the order in which the constructor was given them, by together().
  /// Throws Error(Malformed) naming the value where an input holds a NaN or an infinity.
  void collect(std::span<SharedInput> inputs);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace infopt
