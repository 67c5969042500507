// The operators that multiply and add with constant weights, seen alike.
#pragma once
#include <optional>
#include <vector>

#include "calibration/calibration.h"
#include "lib/ir/graph.h"
#include "lib/report/report.h"

namespace infopt {

/// A Conv, ConvTranspose, Gemm or MatMul whose weights are constant. Its weights seen as W[out][in][tap]: what it sums over is
/// the input channels of one group and the taps of a kernel.
struct Layer {
  NodeId node = kNone;
  ValueId weights = kNone;
  int64_t out_axis = 0;   ///< of the stored weights, for a scale per output channel; of one group where transposed
  int64_t out = 0, in = 0, taps = 1, groups = 1;
  int64_t input_axis = 1; ///< of the activations: the one that is summed over
  bool convolution = false, transposed = false;
};

/// The layer that a node is; empty where it isn't one (weights not constant, not floating, or of an odd shape).
std::optional<Layer> layer_of(const Graph& graph, NodeId id);
std::vector<Layer> find_layers(const Graph& graph);
/// Multiplications of one run with those shapes; 0 where the output's shape isn't known. Also for products of two activations.
int64_t macs_of(const Graph& graph, const Node& node, const std::vector<Observed>& seen);
/// What a report on a node that multiplies begins with: label, operator, multiplications and weights, and where `layer` is empty that it is
/// a product of two activations. Empty for other nodes. `seen` may be empty: then no multiplications are known.
std::optional<LayerReport> product_report(const Graph& graph, const Node& node, const std::optional<Layer>& layer, const std::vector<Observed>& seen);

/// The weights as float, W[out][in][tap], whatever their order and type in the graph; `out` counts over all groups.
std::vector<float> read_weights(const Layer& layer, const Tensor& weights);
/// Elements in the order of read_weights() as a tensor in the stored order.
Tensor write_weights(const Layer& layer, const Shape& stored, const std::vector<int8_t>& codes);
Tensor write_weights(const Layer& layer, const Shape& stored, const std::vector<float>& values);

/// The Relu or Clip from 0 that follows a node and that an unsigned range (or any saturating one) stands for; null where none does.
const Node* absorbed_activation(const Graph& graph, const Node& node);

}  // namespace infopt
