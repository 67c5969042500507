// What a graph costs by its shapes alone: multiplications with additions, and parameters. Zeros among the weights count like other numbers.
#pragma once
#include <vector>

#include "calibration/calibration.h"
#include "lib/ir/graph.h"

namespace infopt {

struct CountedNode {
  NodeId node = kNone;
  int64_t macs = 0;        ///< of one run; 0 where shapes aren't known
  int64_t parameters = 0;  ///< elements of the constants that no node before it in the list reads
};

struct GraphCosts {
  int64_t macs = 0, parameters = 0;
  int64_t parameter_bytes = 0;     ///< as stored, blocks' scales and zero points included
  int64_t unknown = 0;             ///< operators that multiply, of unknown shapes
  std::vector<CountedNode> nodes;     ///< those with MACs or parameters, in the graph's order
  int64_t flops() const { return 2 * macs; }
};

/// By those shapes (Calibration::observe, or declared_shapes). Bodies of control flow are counted once. Parameters are the elements of constant float
/// tensors and of integer ones that are weights: of integer products, or behind a DequantizeLinear; scales and zero points aren't.
GraphCosts count_costs(const Graph& graph, const std::vector<Observed>& seen);

/// Multiplications of LSTM, GRU and RNN, which GraphCosts leaves out.
int64_t recurrent_macs(const Graph& graph, const std::vector<Observed>& seen);
int64_t recurrent_macs(const Graph& graph, const std::vector<Observed>& seen, const Node& node);  ///< 0 for others

/// What the graph declares or infers of its values, unknown first dimensions taken as one; Undefined where another dimension isn't known.
std::vector<Observed> declared_shapes(const Graph& graph);

}  // namespace infopt
