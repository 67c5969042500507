// Operators that may give something else in each run.
#pragma once
#include "lib/ir/graph.h"

namespace infopt {

/// True for draws of random numbers, Dropout that may train, and operators that infopt knows as not deterministic. `opset`: of the node's domain.
bool is_random(const Node& node, int64_t opset);

}  // namespace infopt
