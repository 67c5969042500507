// ONNX's version converter. Only for files of lib/onnx.
#pragma once
#include "lib/ir/graph.h"

namespace infopt {

/// The model's graph under opset `to`, by ONNX's converter; large weights stay where they are. Names of values stay,
/// metadata of nodes does not. Throws Error(Unsupported) with the converter's words.
void convert_whole(Model& model, int64_t to);

}  // namespace infopt
