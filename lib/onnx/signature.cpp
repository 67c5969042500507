#include "lib/onnx/signature.h"

#include <algorithm>

#include "lib/onnx/proto.h"
#include "onnx/defs/schema.h"

namespace infopt {
namespace {

using Parameters = std::vector<onnx::OpSchema::FormalParameter>;

std::vector<DType> types_of(const onnx::OpSchema::FormalParameter& parameter) {
  std::vector<DType> out;
  for (const std::string* name : parameter.GetTypes()) {
    constexpr std::string_view kTensor = "tensor(";
    if (!name->starts_with(kTensor)) continue;  // a sequence, optional or map
    std::string element = name->substr(kTensor.size(), name->size() - kTensor.size() - 1);
    if (element == "float") element = "float32";
    else if (element == "double") element = "float64";
    const DType dtype = dtype_from_name(element);
    if (dtype != DType::Undefined) out.push_back(dtype);
  }
  std::sort(out.begin(), out.end());
  return out;
}

/// False where there are more of them than parameters.
bool collect(const Parameters& parameters, size_t count, std::vector<std::vector<DType>>& out) {
  for (size_t i = 0; i < count; ++i) {
    const bool variadic = !parameters.empty() && parameters.back().GetOption() == onnx::OpSchema::Variadic;
    if (i >= parameters.size() && !variadic) return false;
    out.push_back(types_of(parameters[std::min(i, parameters.size() - 1)]));
  }
  return true;
}

}  // namespace

std::optional<Signature> signature_of(const Graph& graph, const Node& node) {
  const auto* schema = onnx::OpSchemaRegistry::Schema(node.op, static_cast<int>(graph.opset(node.domain)), node.domain);
  Signature s;
  if (!schema || !collect(schema->inputs(), node.inputs.size(), s.inputs) || !collect(schema->outputs(), node.outputs.size(), s.outputs))
    return std::nullopt;
  return s;
}

}  // namespace infopt
