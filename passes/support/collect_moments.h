// The moments of layers' inputs over the calibration data.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "passes/pass.h"
#include "passes/support/input_moments.h"

namespace infopt {

/// Layers that see the same input through the same window.
struct SharedInput {
  ValueId input = kNone;
  std::vector<size_t> layers;  ///< places in the list of layers
  int64_t depth = 0;           ///< listed layers on the longest way to the input
  int64_t bytes = 0;           ///< of its moments
  std::unique_ptr<InputMoments> moments;
};

/// Of the layers that InputMoments can see, by depth, then in the graph's order.
std::vector<SharedInput> find_shared_inputs(const Graph& graph, const std::vector<Layer>& layers);

/// How many of the inputs, from the first on, are collected together: up to some 512 MB of moments; where `by_depth`, of one depth only.
size_t together(std::span<const SharedInput> inputs, bool by_depth);

/// Fills in `moments` from all samples of the data. `quantized` is null, or `graph` with other weights in it: then H is of its values, and C of
/// both graphs'. Throws Error naming the sample.
void collect_moments(const Graph& graph, const Graph* quantized, const std::vector<Layer>& layers, std::span<SharedInput> inputs, PassContext& context);

}  // namespace infopt
