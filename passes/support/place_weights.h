// What an error at a place of a layer's output costs the model's outputs: padding that a mask takes out costs nothing, words of a short sentence more
// than those of a long one. Layers rounded with that in view (as GuidedQuant, arXiv 2505.07004, does) spend their errors where they matter least.
#pragma once
#include <map>
#include <vector>

#include "passes/pass.h"
#include "passes/support/layers.h"

namespace infopt {

class PlaceWeights {
 public:
  PlaceWeights() = default;
  /// A place is one of a layer's output, all channels of it. Its weight is the squared gradient of v·y, summed over the channels, where y are the
  /// float graph's outputs (before a Softmax or Sigmoid that ends them, each over its own size) and v are random signs: the squared norm of their
  /// derivative, in the mean. Only models with an input of integers or booleans are looked at: of images and sounds no place is empty, and on nets that
  /// recognize text in images rounding so was worse by 1 dB. Nothing is found, and all places count alike, where an operator can't be differentiated, or where this takes more
  /// than a few teraflops or some hundred megabytes. The same bits for any number of threads.
  PlaceWeights(const Graph& graph, const std::vector<Layer>& layers, PassContext& context);
  /// By place, a convolution's in row-major order, with a mean of 1 over all samples; null where all count alike.
  const std::vector<float>* of(NodeId layer, int64_t sample) const;
  /// Those of layers that share their inputs: the mean. Empty where all count alike.
  std::vector<float> mean_of(const std::vector<NodeId>& layers, int64_t sample) const;
  bool empty() const { return found_.empty(); }

 private:
  void find(const Graph& graph, const std::vector<Layer>& layers, PassContext& context);
  void even_out();
  std::map<NodeId, std::vector<std::vector<float>>> found_;  ///< by sample
};

}  // namespace infopt
