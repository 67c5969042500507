// A model under a newer opset.
#pragma once
#include <cstdint>

#include "lib/ir/graph.h"

namespace infopt {

/// Rewrites the operators of the default domain, in bodies too, so that the model means the same under opset `to` (at most
/// kNewestTarget); does nothing where the model is there already, or newer. What can be known of types is inferred on
/// the way. From an opset before 7 ONNX's own version converter takes the model to 7 first.
/// Throws Error(Unsupported) naming operator and node where the newer opset can't say the same; the model is then as it was.
void upgrade_opset(Model& model, int64_t to);
inline constexpr int64_t kNewestTarget = 25;

}  // namespace infopt
