// Model-local functions.
#pragma once
#include "onnx/onnx_pb.h"

namespace infopt {

/// Replaces each call of a model-local function by the function's body, converted to the model's opset where they differ.
/// Throws Error(Malformed) for functions that call themselves, Error(Limit) where the bodies add up to more than
/// a million nodes, Error(Unsupported) where ONNX's inliner refuses.
void inline_functions(onnx::ModelProto& model);

}  // namespace infopt
