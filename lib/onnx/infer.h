// ONNX's own shape and type inference.
#pragma once
#include "lib/ir/graph.h"

namespace infopt {

/// Infers the types of the graph's values, bodies' included, with data propagation, and stores what is newly known in
/// Value::type. What was known stays, unless `afresh`: then the types of what nodes of standard operators make are found anew.
/// Where inference fails or doesn't know an operator, types stay as they were.
void infer_types(Model& model, bool afresh = false);

/// Exports declare shapes that their operators contradict (a rank is off, a fixed size is another), which ONNX's check finds once constants are
/// folded: such values, in bodies too, get the inferred types. Returns a sentence for each of the graph's outputs that was corrected.
std::vector<std::string> correct_declared_types(Model& model);

}  // namespace infopt
