// Tensors in files of their own, as ONNX's test data has them (input_0.pb).
#pragma once
#include <string>

#include "lib/base/tensor.h"

namespace infopt {

struct NamedTensor {
  std::string name;  ///< often empty
  Tensor tensor;
};

/// Reads a serialized TensorProto. Throws Error(Io), Error(Malformed), and Error(Unsupported) for a sequence or an optional.
NamedTensor read_tensor_file(const std::string& path);
void write_tensor_file(const std::string& path, const Tensor& tensor, const std::string& name = {});

}  // namespace infopt
