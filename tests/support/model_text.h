// Small models for tests, from ONNX's textual form.
#pragma once
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "lib/onnx/import.h"
#include "onnx/defs/parser.h"

namespace infopt::test {

inline onnx::ModelProto proto_of(const std::string& text) {
  onnx::ModelProto proto;
  const auto status = onnx::OnnxParser::Parse(proto, text.c_str());
  if (!status.IsOK()) throw std::runtime_error(status.ErrorMessage());
  return proto;
}

/// The header with IR version 8 and opset 17, and then the graph.
inline std::string with_header(const std::string& graph, int opset = 17, int ir = 8) {
  return "<ir_version: " + std::to_string(ir) + ", opset_import: [\"\": " + std::to_string(opset) + "]>\n" + graph;
}

inline Model model_of(const std::string& graph, int opset = 17, int ir = 8) {
  return parse_model(proto_of(with_header(graph, opset, ir)).SerializeAsString());
}

/// A folder that goes away with its files.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "infopt-test-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline void write_bytes(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

}  // namespace infopt::test
