// Weights that lie in, or are read from, the bodies of Ifs, Loops and Scans.
#pragma once
#include <string>
#include <vector>

#include "lib/ir/edit.h"
#include "passes/support/layers.h"

namespace infopt {

/// Whether bodies of the node, at any depth, read the graph's value as weights of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU or RNN and as nothing else.
bool bodies_multiply_by(const Graph& graph, const Node& node, ValueId value);

/// Floating constants in bodies, of `least` elements and more, that are weights and nothing else become the outermost graph's, which `edit` is of:
/// the bodies read them from there. Returns how many.
int64_t hoist_body_weights(GraphEdit& edit, int64_t least);

/// Constants of the graph that bodies multiply by and that nothing else reads, of `least` elements and more, in the graph's order: as layers of the node that
/// the body is of, for read_weights() and write_weights() alone. Of recurrent ones the directions are groups.
std::vector<Layer> find_body_weights(const Graph& graph, int64_t least);

/// LSTM's, GRU's or RNN's weights, [directions, rows, columns], seen so.
Layer recurrent_layer(NodeId reader, ValueId weights, const Shape& stored);
/// Whether recurrent_layer() made it: no convolution has its outputs on axis 1 unless it is transposed.
inline bool is_recurrent(const Layer& layer) { return layer.convolution && !layer.transposed && layer.out_axis == 1; }

}  // namespace infopt
