#include "lib/onnx/check.h"

#include "lib/onnx/import.h"
#include "lib/onnx/proto.h"
#include "lib/onnx/wire.h"
#include "onnx/checker.h"

namespace infopt {
namespace {

constexpr size_t kWholeBytes = 1 << 16;  // larger tensors than this are no shapes that inference would look into

/// A tensor without its data can't pass the checker: it becomes a graph input of its type.
void weights_to_inputs(onnx::GraphProto& graph) {
  google::protobuf::RepeatedPtrField<onnx::TensorProto> kept;
  for (auto& tensor : *graph.mutable_initializer()) {
    if (!tensor.has_segment() && tensor.data_location() != onnx::TensorProto::EXTERNAL) {
      kept.Add(std::move(tensor));
      continue;
    }
    bool listed = false;
    for (const auto& input : graph.input()) listed = listed || input.name() == tensor.name();
    if (listed) continue;
    auto* input = graph.add_input();
    input->set_name(tensor.name());
    encode_type(Type::tensor(dtype_from_onnx(tensor.data_type()), Shape(tensor.dims().begin(), tensor.dims().end())),
                input->mutable_type());
  }
  graph.mutable_initializer()->Swap(&kept);
  // ONNX's inference takes a sparse initializer for a value of a sparse type, which no operator reads; engines read it as the tensor it stands for.
  for (const auto& sparse : graph.sparse_initializer()) {
    auto* input = graph.add_input();
    input->set_name(sparse.values().name());
    encode_type(Type::tensor(dtype_from_onnx(sparse.values().data_type()), Shape(sparse.dims().begin(), sparse.dims().end())), input->mutable_type());
  }
  graph.clear_sparse_initializer();
}

/// Attributes and bodies' initializers get their data back.
void restore(onnx::GraphProto& graph, TensorSource& source, bool is_body) {
  auto whole = [&](onnx::TensorProto& t) {
    if (!t.has_segment() && t.data_location() != onnx::TensorProto::EXTERNAL) return;
    const std::string name = t.name();
    const Tensor tensor = decode_tensor(t, source);
    t.Clear();
    t.set_name(name);
    encode_tensor(tensor, &t);
  };
  if (is_body)
    for (auto& t : *graph.mutable_initializer()) whole(t);
  for (auto& node : *graph.mutable_node())
    for (auto& a : *node.mutable_attribute()) {
      if (a.has_t()) whole(*a.mutable_t());
      for (auto& t : *a.mutable_tensors()) whole(t);
      if (a.has_g()) restore(*a.mutable_g(), source, true);
      for (auto& g : *a.mutable_graphs()) restore(g, source, true);
    }
}

}  // namespace

void check_model_file(const std::string& path, ErrorKind kind) {
  read_model(path, {.inline_functions = false});  // sizes, names, external data
  const auto file = MappedFile::open(path);
  TensorSource source{view_of(*file), file, folder_of(path)};
  onnx::ModelProto proto;
  try {
    if (!proto.ParseFromString(wire::strip(wire::Message::Model, source.bytes, kWholeBytes))) throw Error(kind, "isn't an ONNX model");
    weights_to_inputs(*proto.mutable_graph());
    restore(*proto.mutable_graph(), source, false);
    guarded(kind, "fails ONNX's check", [&] { onnx::checker::check_model(proto, true); });
  } catch (const Error& e) {
    throw e.within(path);
  }
}

}  // namespace infopt
