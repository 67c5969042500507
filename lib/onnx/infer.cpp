#include "lib/onnx/infer.h"

#include "lib/ir/edit.h"
#include "lib/ir/type_text.h"
#include "lib/onnx/graph_writer.h"
#include "onnx/shape_inference/implementation.h"

namespace infopt {
namespace {

/// Larger integer tensors can matter as shapes and indices, larger floats don't.
constexpr size_t kShapeBytes = 1 << 16;

using Types = std::unordered_map<std::string, const onnx::TypeProto*>;

void forget(const std::shared_ptr<Graph>& graph) {
  GraphEdit edit(*graph);
  for (NodeId id : graph->order()) {
    const Node& n = graph->node(id);
    for (const auto& body : n.bodies()) forget(body);
    if (!onnx::OpSchemaRegistry::Schema(n.op, static_cast<int>(graph->opset(n.domain)), n.domain)) continue;
    for (ValueId o : n.outputs)
      if (o != kNone) edit.set_type(o, {});
  }
}

/// What is known of a value and what was found, together; a contradiction leaves what is known.
Type merged(const Type& known, Type found) {
  if (known.dtype == DType::Undefined && known.opaque.empty()) return found;
  if (known.dtype != found.dtype || !known.opaque.empty() || !found.has_shape) return known;
  if (!known.has_shape) return found;
  if (known.shape.size() != found.shape.size()) return known;
  for (size_t i = 0; i < known.shape.size(); ++i)
    if (known.shape[i].size >= 0 || (found.shape[i].size < 0 && !known.shape[i].symbol.empty())) found.shape[i] = known.shape[i];
  return found;
}

/// Whether no tensor can have both types.
bool contradict(const Type& a, const Type& b) {
  if (!a.opaque.empty() || !b.opaque.empty() || a.dtype == DType::Undefined || b.dtype == DType::Undefined) return false;
  if (a.dtype != b.dtype) return true;
  if (!a.has_shape || !b.has_shape) return false;
  if (a.shape.size() != b.shape.size()) return true;
  for (size_t i = 0; i < a.shape.size(); ++i)
    if (a.shape[i].size >= 0 && b.shape[i].size >= 0 && a.shape[i].size != b.shape[i].size) return true;
  return false;
}

/// What inference throws in spite of its options (a declared shape that contradicts the inferred one) leaves the rest undone.
bool infer(onnx::ModelProto& proto) {
  try {
    guarded(ErrorKind::Malformed, "inference", [&] {
      onnx::shape_inference::InferShapes(proto, onnx::OpSchemaRegistry::Instance(), onnx::ShapeInferenceOptions(false, 0, true));
    });
    return true;
  } catch (const Error&) {
    return false;
  }
}

Types types_in(const onnx::GraphProto& proto) {
  Types types;
  for (const auto* list : {&proto.value_info(), &proto.input(), &proto.output()})
    for (const auto& info : *list) types[info.name()] = &info.type();
  return types;
}

/// The bodies of a graph's nodes, each with what was written of it: nodes and attributes were written in order.
template <class Visit>
void for_each_body(const Graph& graph, const onnx::GraphProto& proto, const Visit& visit) {
  for (size_t n = 0; n < graph.order().size(); ++n) {
    const auto& attributes = graph.node(graph.order()[n]).attributes;
    for (size_t a = 0; a < attributes.size(); ++a) {
      const auto& written = proto.node(static_cast<int>(n)).attribute(static_cast<int>(a));
      if (const auto* one = std::get_if<std::shared_ptr<Graph>>(&attributes[a].data)) visit(*one, written.g());
      if (const auto* many = std::get_if<std::vector<std::shared_ptr<Graph>>>(&attributes[a].data))
        for (size_t g = 0; g < many->size(); ++g) visit((*many)[g], written.graphs(static_cast<int>(g)));
    }
  }
}

void store(const std::shared_ptr<Graph>& graph, const onnx::GraphProto& proto, const ValueNames& names) {
  const Types types = types_in(proto);
  GraphEdit edit(*graph);
  for (size_t i = 0; i < graph->value_capacity(); ++i) {
    const auto id = static_cast<ValueId>(i);
    if (!graph->value_alive(id) || graph->value(id).constant.defined()) continue;
    const auto it = types.find(names.of(*graph, id));
    if (it == types.end()) continue;
    edit.set_type(id, merged(graph->value(id).type, decode_type(*it->second)));
  }
  for_each_body(*graph, proto, [&](const std::shared_ptr<Graph>& body, const onnx::GraphProto& written) { store(body, written, names); });
}

/// Without what the file declares of the values that nodes make, in bodies too.
void drop_declarations(onnx::GraphProto& graph) {
  graph.clear_value_info();
  for (auto& output : *graph.mutable_output()) output.clear_type();
  for (auto& node : *graph.mutable_node())
    for (auto& attribute : *node.mutable_attribute()) {
      if (attribute.has_g()) drop_declarations(*attribute.mutable_g());
      for (auto& body : *attribute.mutable_graphs()) drop_declarations(body);
    }
}

onnx::ModelProto proto_for_inference(const Model& model, ValueNames& names) {
  return make_model_proto(model, names, [](const Tensor& t, onnx::TensorProto* out) {
    const bool shape_like = (t.dtype() == DType::I64 || t.dtype() == DType::I32) && t.bytes() <= kShapeBytes;
    if (shape_like) encode_tensor(t, out);
    else put_small(t, out);
  });
}

/// Calls visit(graph, value, inferred type) for what nodes make, bodies' values too.
template <class Visit>
void for_each_made(const std::shared_ptr<Graph>& graph, const onnx::GraphProto& proto, const ValueNames& names, const Visit& visit) {
  const Types found = types_in(proto);
  for (size_t i = 0; i < graph->value_capacity(); ++i) {
    const auto id = static_cast<ValueId>(i);
    if (!graph->value_alive(id) || graph->value(id).producer == kNone) continue;
    const auto it = found.find(names.of(*graph, id));
    if (it != found.end()) visit(graph, id, decode_type(*it->second));
  }
  for_each_body(*graph, proto, [&](const std::shared_ptr<Graph>& body, const onnx::GraphProto& written) { for_each_made(body, written, names, visit); });
}

}  // namespace

std::vector<std::string> correct_declared_types(Model& model) {
  ValueNames names(*model.graph);
  onnx::ModelProto bare = proto_for_inference(model, names);
  drop_declarations(*bare.mutable_graph());
  if (!infer(bare)) return {};
  std::vector<std::string> corrected;
  bool any = false;
  for_each_made(model.graph, bare.graph(), names, [&](const std::shared_ptr<Graph>& graph, ValueId id, const Type& inferred) {
    const Type declared = graph->value(id).type;
    if (!contradict(declared, inferred)) return;
    any = true;
    GraphEdit(*graph).set_type(id, inferred);
    if (graph == model.graph && graph->is_output(id)) corrected.push_back("output '" + graph->value(id).name + "' was declared as " + to_string(declared) + ", and its operators make " + to_string(inferred) + ": so the written file says");
  });
  if (!any) return corrected;
  // What lies behind was found from the wrong declarations; only what the operators alone give is right for sure.
  for_each_made(model.graph, bare.graph(), names, [&](const std::shared_ptr<Graph>& graph, ValueId id, const Type& inferred) {
    const Node& n = *graph->producer(id);
    const bool kept = (graph == model.graph && graph->is_output(id)) || inferred.dtype == DType::Undefined || inferred.has_shape || !graph->value(id).type.opaque.empty();
    if (!kept && onnx::OpSchemaRegistry::Schema(n.op, static_cast<int>(graph->opset(n.domain)), n.domain)) GraphEdit(*graph).set_type(id, inferred);
  });
  return corrected;
}

void infer_types(Model& model, bool afresh) {
  std::vector<Type> declared;  // of the outputs: behind an operator that ONNX doesn't know nothing is inferred, behind some that it knows no shape
  for (ValueId id : model.graph->outputs()) declared.push_back(model.graph->value(id).type);
  if (afresh) forget(model.graph);
  ValueNames names(*model.graph);
  onnx::ModelProto proto = proto_for_inference(model, names);
  onnx::ModelProto bare = proto;
  bool inferred = infer(proto);
  if (!inferred) {
    drop_declarations(*bare.mutable_graph());
    inferred = infer(bare);
    if (inferred) proto = std::move(bare);
  }
  if (inferred) store(model.graph, proto.graph(), names);
  GraphEdit edit(*model.graph);
  for (size_t i = 0; i < declared.size(); ++i) {
    const ValueId output = model.graph->outputs()[i];
    Type found = model.graph->value(output).type;
    if (!found.opaque.empty()) continue;
    if (found.dtype == DType::Undefined) edit.set_type(output, declared[i]);
    else if (!found.has_shape && declared[i].has_shape) {
      found.has_shape = true, found.shape = declared[i].shape;
      edit.set_type(output, std::move(found));
    }
  }
}

}  // namespace infopt
