// ONNX files into the graph.
#pragma once
#include <string>

#include "lib/ir/graph.h"

namespace infopt {

struct ImportOptions {
  /// Calls of model-local functions are replaced by the functions' bodies; else the functions are kept as they are.
  bool inline_functions = true;
};

/// Reads a model (IR versions from 3 to the newest that ONNX 1.23 defines). Weights stay mapped from the file (and its external data).
/// Nodes come in a topological order, whatever the file's; bodies refer to their parents' values by
/// Value::outer. Below IR version 4 an initializer had to be listed among the graph's inputs: there it becomes a plain constant. From
/// version 4 on such a value stays a graph input, and its initializer is the default.
/// Throws Error: Io (a file is missing or can't be read), Malformed (not a model, or one that contradicts itself; names
/// node, value or tensor), Unsupported (newer than infopt knows), Escape (external data outside the model's folder),
/// Limit (bodies or functions nested without end).
Model read_model(const std::string& path, const ImportOptions& options = {});

/// The same from memory, which is copied; external data can't be referred to.
Model parse_model(const std::string& bytes, const ImportOptions& options = {});

}  // namespace infopt
