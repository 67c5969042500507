// Where a quantized graph can be cut so that one activation alone passes on: residual blocks, a transformer's sub-blocks, single layers.
#pragma once
#include <functional>
#include <set>
#include <vector>

#include "lib/ir/graph.h"

namespace infopt {

/// A stretch of the graph that is compared with its float form at its outputs.
struct Block {
  std::vector<ValueId> inputs;   ///< all that its nodes read of what the model's inputs make, in the order of their ids
  std::vector<ValueId> outputs;
  std::vector<NodeId> layers;    ///< of those asked for, in the graph's order
};

struct BlockSearch {
  std::set<NodeId> layers;
  /// Whether the float graph has a value to compare with.
  std::function<bool(ValueId)> comparable;
  size_t most_layers = 4;  ///< neighbours are joined up to so many; what can't be cut may have more
};

/// Says the same as what it reads, but gradients vanish behind it: Softmax, Sigmoid and the like at a model's end.
bool squashes(const Node& node);

/// Blocks that together hold every layer whose output is comparable, in an order in which none reads a later one. An output that ends in Softmax,
/// Sigmoid or the like is compared before it.
std::vector<Block> find_blocks(const Graph& graph, const BlockSearch& search);
/// One for each of the layers, up to the first comparable value behind it.
std::vector<Block> single_layer_blocks(const Graph& graph, const BlockSearch& search);

}  // namespace infopt
