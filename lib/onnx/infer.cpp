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
  // Nodes and attributes were written in order.
  for (size_t n = 0; n < graph->order().size(); ++n) {
    const auto& attributes = graph->node(graph->order()[n]).attributes;
    for (size_t a = 0; a < attributes.size(); ++a) {
      const auto& written = proto.node(static_cast<int>(n)).attribute(static_cast<int>(a));
      if (const auto* one = std::get_if<std::shared_ptr<Graph>>(&attributes[a].data)) store(*one, written.g(), names);
      if (const auto* many = std::get_if<std::vector<std::shared_ptr<Graph>>>(&attributes[a].data))
        for (size_t g = 0; g < many->size(); ++g) store((*many)[g], written.graphs(static_cast<int>(g)), names);
    }
  }
}

/// Without what the file declares of the values that nodes make.
void drop_declarations(onnx::ModelProto& proto) {
  proto.mutable_graph()->clear_value_info();
  for (auto& output : *proto.mutable_graph()->mutable_output()) output.clear_type();
}

onnx::ModelProto proto_for_inference(const Model& model, ValueNames& names) {
  return make_model_proto(model, names, [](const Tensor& t, onnx::TensorProto* out) {
    const bool shape_like = (t.dtype() == DType::I64 || t.dtype() == DType::I32) && t.bytes() <= kShapeBytes;
    if (shape_like) encode_tensor(t, out);
    else put_small(t, out);
  });
}

}  // namespace

std::vector<std::string> correct_declared_types(Model& model) {
  ValueNames names(*model.graph);
  onnx::ModelProto bare = proto_for_inference(model, names);
  drop_declarations(bare);
  if (!infer(bare)) return {};
  const Types found = types_in(bare.graph());
  std::vector<std::string> corrected;
  GraphEdit edit(*model.graph);
  for (size_t i = 0; i < model.graph->value_capacity(); ++i) {
    const auto id = static_cast<ValueId>(i);
    if (!model.graph->value_alive(id) || model.graph->value(id).producer == kNone) continue;
    const auto it = found.find(names.of(*model.graph, id));
    if (it == found.end()) continue;
    const Type declared = model.graph->value(id).type;
    const Type inferred = decode_type(*it->second);
    if (!contradict(declared, inferred)) continue;
    edit.set_type(id, inferred);
    if (model.graph->is_output(id)) corrected.push_back("output '" + model.graph->value(id).name + "' was declared as " + to_string(declared) + ", and its operators make " + to_string(inferred) + ": so the written file says");
  }
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
    drop_declarations(bare);
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
