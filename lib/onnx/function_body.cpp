#include "lib/onnx/function_body.h"

#include <algorithm>
#include <map>
#include <optional>

#include "lib/onnx/graph_reader.h"
#include "lib/onnx/graph_writer.h"
#include "onnx/defs/schema.h"

namespace infopt {
namespace {

using Attributes = std::map<std::string, const onnx::AttributeProto*>;

/// Inputs and outputs go by number, as the values' names don't matter; only bodies need theirs.
onnx::NodeProto as_proto(const Graph& graph, const Node& node) {
  onnx::NodeProto proto;
  proto.set_op_type(node.op);
  proto.set_domain(node.domain);
  for (size_t i = 0; i < node.inputs.size(); ++i) proto.add_input(node.inputs[i] == kNone ? std::string() : "input" + std::to_string(i));
  for (size_t i = 0; i < node.outputs.size(); ++i)
    proto.add_output(node.outputs[i] == kNone ? std::string() : "output" + std::to_string(i));
  const Graph none;
  ValueNames names{node.bodies().empty() ? none : graph};
  for (const Attribute& a : node.attributes) GraphWriter(names, encode_tensor).write_attribute(a, proto.add_attribute());
  return proto;
}

/// Puts the call's attributes in the place of references to them, and drops inputs that the call leaves out.
void bind_call(google::protobuf::RepeatedPtrField<onnx::NodeProto>* nodes, const Attributes& attributes,
          const std::map<std::string, bool>& omitted) {
  for (onnx::NodeProto& node : *nodes) {
    for (std::string& input : *node.mutable_input())
      if (omitted.contains(input)) input.clear();
    google::protobuf::RepeatedPtrField<onnx::AttributeProto> bound;
    for (onnx::AttributeProto& a : *node.mutable_attribute()) {
      if (!a.ref_attr_name().empty()) {
        const auto it = attributes.find(a.ref_attr_name());
        if (it == attributes.end()) continue;
        const std::string name = a.name();
        a = *it->second;
        a.set_name(name);
      } else {
        if (a.has_g()) bind_call(a.mutable_g()->mutable_node(), attributes, omitted);
        for (auto& g : *a.mutable_graphs()) bind_call(g.mutable_node(), attributes, omitted);
      }
      bound.Add(std::move(a));
    }
    node.mutable_attribute()->Swap(&bound);
  }
}

std::optional<onnx::FunctionProto> function_of(const Graph& graph, const Node& node, const onnx::OpSchema& schema,
                                               const onnx::NodeProto& call, int opset) {
  if (const auto* fixed = schema.GetFunction(opset)) {
    onnx::FunctionProto function = *fixed;
    if (function.input_size() == 0) schema.BuildFunction(function);
    return function;
  }
  if (!schema.HasContextDependentFunction()) return std::nullopt;
  std::vector<onnx::TypeProto> types;
  for (ValueId v : node.inputs) {
    types.emplace_back();
    if (v == kNone) continue;
    const Tensor* constant = graph.constant(v);
    encode_type(constant ? Type::tensor(constant->dtype(), constant->shape()) : graph.value(v).type, &types.back());
  }
  onnx::FunctionProto function;
  if (!schema.BuildContextDependentFunction(onnx::FunctionBodyBuildContextImpl(call, types), function, opset)) return std::nullopt;
  return function;
}

std::shared_ptr<Graph> expand(const Graph& graph, const Node& node, const onnx::OpSchema& schema, int opset) {
  const onnx::NodeProto call = as_proto(graph, node);
  auto function = function_of(graph, node, schema, call, opset);
  if (!function || call.input_size() > function->input_size() || call.output_size() > function->output_size()) return nullptr;
  // In the place of outputs that the call leaves out, which the body may not compute, stands one that it takes.
  const auto first = std::find_if(node.outputs.begin(), node.outputs.end(), [](ValueId v) { return v != kNone; });
  if (first == node.outputs.end()) return nullptr;
  const int wanted = static_cast<int>(first - node.outputs.begin());
  Attributes attributes;
  for (const auto& [name, attribute] : schema.attributes())
    if (attribute.default_value.type() != onnx::AttributeProto::UNDEFINED) attributes[name] = &attribute.default_value;
  for (const auto& a : function->attribute_proto()) attributes[a.name()] = &a;
  for (const auto& a : call.attribute()) attributes[a.name()] = &a;
  std::map<std::string, bool> omitted;
  onnx::GraphProto body;
  body.set_name(schema.Name());
  for (int i = 0; i < function->input_size(); ++i) {
    if (i >= call.input_size() || call.input(i).empty()) omitted[function->input(i)] = true;
    if (i < call.input_size()) body.add_input()->set_name(function->input(i));
  }
  bind_call(function->mutable_node(), attributes, omitted);
  body.mutable_node()->Swap(function->mutable_node());
  for (int i = 0; i < call.output_size(); ++i) body.add_output()->set_name(function->output(call.output(i).empty() ? wanted : i));
  TensorSource nowhere;
  GraphReader::Context context{nowhere, onnx::IR_VERSION, graph.opsets};
  for (const auto& entry : function->opset_import()) context.opsets[canonical_domain(entry.domain())] = entry.version();
  auto result = GraphReader(body, context).read();
  GraphEdit edit(*result);
  for (size_t i = 0; i < node.inputs.size(); ++i)
    if (node.inputs[i] != kNone) edit.set_type(result->inputs()[i], graph.value(node.inputs[i]).type);
  return result;
}

}  // namespace

std::shared_ptr<Graph> expand_function(const Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const int opset = static_cast<int>(graph.opset(node.domain));
  const auto* schema = onnx::OpSchemaRegistry::Schema(node.op, opset, node.domain);
  if (!schema || !node.captures.empty() || (!schema->HasFunction() && !schema->HasContextDependentFunction())) return nullptr;
  std::shared_ptr<Graph> body;
  try {
    guarded(ErrorKind::Unsupported, "ONNX's body of " + node.op, [&] { body = expand(graph, node, *schema, opset); });
  } catch (const Error&) {
    return nullptr;
  }
  return body;
}

}  // namespace infopt
