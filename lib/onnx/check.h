// ONNX's own checker.
#pragma once
#include <string>

#include "lib/base/error.h"

namespace infopt {

/// onnx.checker's full check of a model file: structure, schemas, and strict type and shape inference. Weights are checked for
/// their size, not copied. Throws Error(kind) with the checker's words, besides what read_model throws.
void check_model_file(const std::string& path, ErrorKind kind = ErrorKind::Malformed);

}  // namespace infopt
