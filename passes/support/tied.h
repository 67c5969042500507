// Tables that are looked up in and multiplied with: a language model's embedding and its head.
#pragma once
#include <map>

#include "lib/ir/edit.h"
#include "passes/support/layers.h"

namespace infopt {

/// MatMul(x, Transpose(constant matrix)) reads a transposed constant instead, so that it is seen as a layer. Folding leaves such a Transpose
/// where others read the matrix too. Returns the new constants, each with the matrix that it is the transposition of.
std::map<ValueId, ValueId> transpose_constants(GraphEdit& edit);

/// The new constants that products still read as they are become Transposes again where others still read the matrix: else it would be stored twice.
void restore_transposes(GraphEdit& edit, const std::map<ValueId, ValueId>& made);

/// Whether the layer's weights are the table's elements, a row of the table for each output channel.
bool reads_table(const Graph& graph, const Layer& layer, ValueId table);

}  // namespace infopt
