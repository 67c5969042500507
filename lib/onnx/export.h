// The graph into ONNX files.
#pragma once
#include <cstdint>
#include <string>

#include "lib/ir/graph.h"

namespace infopt {

struct ExportOptions {
  /// Weights go to a file beside the model whatever its size.
  bool external_data = false;
  /// A larger model file can't be parsed by protobuf: above this the weights go beside it in any case.
  uint64_t largest_file = (uint64_t{1} << 31) - 1;
  /// Tensors of fewer bytes stay in the model.
  uint64_t smallest_external = 1024;
  /// Constants that are smaller as ONNX's sparse initializers (8 bytes of index beside each element that isn't 0) become that; not those of bodies.
  bool sparse_initializers = false;
  /// The path that external data is called after; empty: the model's. In the same folder.
  std::string data_path;
};

/// Writes the model: the same model gives the same bytes. Values without a name get one, those that have one keep it. The IR
/// version is the model's, or what its opset and types need. External data is one file "<model>.<hash of its content>.data" (see data_path),
/// complete before the model appears. Weights are written from where they lie, without a copy.
/// Throws Error(Io) where a file can't be written; then nothing new stands at `path`.
void write_model(const Model& model, const std::string& path, const ExportOptions& options = {});

/// The bytes that write_model would write, with all data inside.
std::string serialize_model(const Model& model);

}  // namespace infopt
