// ONNX's own shape and type inference.
#pragma once
#include "lib/ir/graph.h"

namespace infopt {

/// Infers the types of the graph's values, bodies' included, with data propagation, and stores what is newly known in
/// Value::type. What was known stays, unless `afresh`: then the types of what nodes of standard operators make are found anew.
/// Where inference fails or doesn't know an operator, types stay as they were.
void infer_types(Model& model, bool afresh = false);

}  // namespace infopt
