// Repair without labels, of all layers at once: the weights that are left are trained to give the outputs that there were.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "passes/pass.h"
#include "passes/support/live_places.h"
#include "passes/support/varied_samples.h"

namespace infopt {

struct DistillOptions {
  int64_t steps = 300;      ///< of Adam
  int64_t first = 0;        ///< of these, before the first look whether more would pay; 0: all
  int64_t batch = 16;       ///< samples a step
  double rate = 0.003;      ///< of Adam at its highest, over a tensor's root mean square
  double within = 0.5;      ///< what the values between the blocks weigh, together, beside the outputs
  const LivePlaces* live = nullptr;  ///< places of those that count; null: all
};

struct DistillReport {
  int64_t steps = 0;        ///< after which it was best; 0: nothing has changed
  int64_t run = 0;          ///< of all
  double noise_before = 0, noise_after = 0;  ///< over the signal, of the outputs on the samples held out
  std::string obstacle;     ///< why it couldn't be tried; empty where it could
  std::string boundary;     ///< the operators without a gradient, before which nothing was learned; empty where there are none
};

/// `edit`: what was made of `original`, whose nodes and the values that they make keep their ids. `keep` says which positions of a value's axis are still
/// there; empty for all. Learned are weights and biases of layers, scales and shifts of normalizations. The loss is the noise over the signal of the model's
/// outputs, before a Softmax or Sigmoid that ends them, and of up to six values on the way that one activation alone passes. What counts is the noise of
/// the outputs on the samples that `data` holds out: the steps that were best there are kept, none where they were best before. Steps come in
/// cycles, each twice as long as the one before, while they take a twentieth off that noise; one that takes nothing off is begun anew at a quarter of the rate. The same bits for any
/// number of threads. What lies before an operator without a gradient, bodies of control flow included, stays as it is, and only what lies
/// behind all such is learned.
DistillReport distill(GraphEdit& edit, const Graph& original, const std::function<std::vector<bool>(ValueId value, int64_t axis)>& keep, VariedSamples& data, const DistillOptions& options, PassContext& context);

}  // namespace infopt
