// Tensors in files of their own, as ONNX's test data has them (input_0.pb).
#pragma once
#include <string>

#include "lib/base/datum.h"
#include "lib/ir/graph.h"

namespace infopt {

struct NamedTensor {
  std::string name;  ///< often empty
  Tensor tensor;
};

/// Reads a serialized TensorProto. Throws Error(Io), Error(Malformed), and Error(Unsupported) for a sequence or an optional.
NamedTensor read_tensor_file(const std::string& path);
/// Reads a serialized TensorProto, SequenceProto or OptionalProto, whichever fits a value declared of that type.
/// Throws Error(Io), Error(Malformed), Error(Unsupported) for maps, sparse tensors and sequences of anything but tensors.
Datum read_datum_file(const std::string& path, const Type& declared);
void write_tensor_file(const std::string& path, const Tensor& tensor, const std::string& name = {});

}  // namespace infopt
