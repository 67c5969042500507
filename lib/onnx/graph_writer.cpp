#include "lib/onnx/graph_writer.h"

#include <algorithm>
#include <string>
#include <type_traits>
#include <unordered_set>

namespace infopt {
namespace {

using A = onnx::AttributeProto;

/// The IR version that first had opset 1, 2, …: ONNX's docs/Versioning.md, released versions.
int64_t ir_of_opset(int64_t opset) {
  constexpr struct {
    int64_t opset, ir;
  } kFirst[] = {{28, 14}, {25, 13}, {24, 12}, {23, 11}, {21, 10}, {19, 9}, {15, 8}, {12, 7}, {11, 6}, {10, 5}, {9, 4}};
  for (const auto& row : kFirst)
    if (opset >= row.opset) return row.ir;
  return 3;
}

int64_t ir_of_dtype(DType dtype) {
  switch (dtype) {
    case DType::U2:
    case DType::I2: return 13;
    case DType::F8E8M0: return 12;
    case DType::F4E2M1: return 11;
    case DType::U4:
    case DType::I4: return 10;
    case DType::F8E4M3FN:
    case DType::F8E4M3FNUZ:
    case DType::F8E5M2:
    case DType::F8E5M2FNUZ: return 9;
    case DType::BF16: return 4;
    default: return 3;
  }
}

int64_t ir_needed(const Graph& graph) {
  int64_t ir = ir_of_opset(graph.opset());
  for (size_t i = 0; i < graph.value_capacity(); ++i) {
    const Value& v = graph.value(static_cast<ValueId>(i));
    if (v.id == kNone) continue;
    ir = std::max(ir, ir_of_dtype(v.constant.defined() ? v.constant.dtype() : v.type.dtype));
    if (v.constant.defined() && !v.graph_input) ir = std::max<int64_t>(ir, 4);
  }
  for (NodeId id : graph.order())
    for (const auto& body : graph.node(id).bodies()) ir = std::max(ir, ir_needed(*body));
  return ir;
}

}  // namespace

namespace {

/// Engines refuse a graph in which two nodes have one name: a repeated name gets a number.
void tell_apart(onnx::GraphProto* graph) {
  std::unordered_set<std::string> names;
  for (const auto& node : graph->node()) names.insert(node.name());
  std::unordered_set<std::string> taken{""};
  for (auto& node : *graph->mutable_node()) {
    if (node.name().empty() || taken.insert(node.name()).second) continue;
    std::string name;
    for (int64_t n = 2; name.empty() || !names.insert(name).second; ++n) name = node.name() + "_" + std::to_string(n);
    node.set_name(name);
  }
}

}  // namespace

namespace {

size_t width_of(const Tensor& t) { return bits_of(t.dtype()) / 8; }

/// Negative zeros are elements: what is read back has the same bits.
bool is_zero(const std::byte* p, size_t width) {
  return std::all_of(p, p + width, [](std::byte b) { return b == std::byte{0}; });
}

bool is_smaller_sparse(const Tensor& t) {
  constexpr size_t kHeader = 32;
  if (t.dtype() == DType::String || bits_of(t.dtype()) % 8 != 0 || t.rank() == 0 || t.size() < 64) return false;
  const size_t width = width_of(t);
  const std::byte* p = t.raw();
  size_t kept = 0;
  for (int64_t i = 0; i < t.size(); ++i) kept += !is_zero(p + static_cast<size_t>(i) * width, width);
  return kept * (width + sizeof(int64_t)) + kHeader < t.bytes();
}

void encode_sparse(const Tensor& t, const std::string& name, onnx::SparseTensorProto* proto) {
  const size_t width = width_of(t);
  const std::byte* p = t.raw();
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < t.size(); ++i)
    if (!is_zero(p + static_cast<size_t>(i) * width, width)) indices.push_back(i);
  Tensor values(t.dtype(), {static_cast<int64_t>(indices.size())});
  for (size_t i = 0; i < indices.size(); ++i) std::copy_n(p + static_cast<size_t>(indices[i]) * width, width, values.mutable_raw() + i * width);
  encode_tensor(values, proto->mutable_values());
  proto->mutable_values()->set_name(name);
  encode_tensor(Tensor::vector(indices), proto->mutable_indices());
  proto->mutable_indices()->set_name(name + "_indices");
  for (int64_t d : t.shape()) proto->add_dims(d);
}

}  // namespace

void put_small(const Tensor& tensor, onnx::TensorProto* proto) {
  if (tensor.bytes() > kInlineBytes) encode_header(tensor, proto);
  else encode_tensor(tensor, proto);
}

void GraphWriter::write(const Graph& graph, onnx::GraphProto* proto, bool is_body) {
  proto->set_name(graph.name.empty() ? "graph" : graph.name);
  if (!graph.doc.empty()) proto->set_doc_string(graph.doc);
  encode_metadata(graph.metadata, proto->mutable_metadata_props());
  for (NodeId id : graph.order()) write_node(graph, graph.node(id), proto->add_node());
  tell_apart(proto);
  for (ValueId id : graph.inputs()) write_info(graph, id, proto->add_input());
  write_values(graph, proto, sparse_ && !is_body);
  write_outputs(graph, proto, is_body);
  write_annotations(graph, proto);
}

void GraphWriter::write_info(const Graph& graph, ValueId id, onnx::ValueInfoProto* proto) {
  const Value& v = graph.value(id);
  proto->set_name(names_.of(graph, id));
  if (v.type.dtype != DType::Undefined || !v.type.opaque.empty()) encode_type(v.type, proto->mutable_type());
  if (!v.doc.empty()) proto->set_doc_string(v.doc);
  encode_metadata(v.metadata, proto->mutable_metadata_props());
}

void GraphWriter::write_values(const Graph& graph, onnx::GraphProto* proto, bool sparse) {
  for (size_t i = 0; i < graph.value_capacity(); ++i) {
    const auto id = static_cast<ValueId>(i);
    if (!graph.value_alive(id)) continue;
    const Value& v = graph.value(id);
    if (v.outer != kNone) continue;
    if (v.constant.defined()) {
      if (sparse && !v.graph_input && is_smaller_sparse(v.constant)) {
        encode_sparse(v.constant, names_.of(graph, id), proto->add_sparse_initializer());
        continue;
      }
      auto* tensor = proto->add_initializer();
      tensor->set_name(names_.of(graph, id));
      put_(v.constant, tensor);
      if (v.graph_input) continue;
      if (!v.doc.empty()) tensor->set_doc_string(v.doc);
      encode_metadata(v.metadata, tensor->mutable_metadata_props());
    } else if (v.producer != kNone && !graph.is_output(id)) {
      const bool known = v.type.dtype != DType::Undefined || !v.type.opaque.empty();
      if (known || !v.doc.empty() || !v.metadata.empty()) write_info(graph, id, proto->add_value_info());
    }
  }
}

/// A body may not give out a value of a graph around it: an Identity stands between.
void GraphWriter::write_outputs(const Graph& graph, onnx::GraphProto* proto, bool is_body) {
  for (ValueId id : graph.outputs()) {
    write_info(graph, id, proto->add_output());
    if (!is_body || graph.value(id).outer == kNone) continue;
    auto* node = proto->add_node();
    node->set_op_type("Identity");
    node->add_input(names_.of(graph, id));
    node->add_output(names_.fresh("Identity"));
    proto->mutable_output(proto->output_size() - 1)->set_name(node->output(0));
  }
}

void GraphWriter::write_annotations(const Graph& graph, onnx::GraphProto* proto) {
  onnx::GraphProto kept;
  if (graph.quantization_annotations.empty() || !kept.ParseFromString(graph.quantization_annotations)) return;
  std::unordered_set<std::string> written;
  for (size_t i = 0; i < graph.value_capacity(); ++i)
    if (graph.value_alive(static_cast<ValueId>(i))) written.insert(names_.of(graph, static_cast<ValueId>(i)));
  for (const auto& a : kept.quantization_annotation())
    if (written.contains(a.tensor_name())) *proto->add_quantization_annotation() = a;
}

void GraphWriter::write_node(const Graph& graph, const Node& node, onnx::NodeProto* proto) {
  for (ValueId v : node.inputs) proto->add_input(v == kNone ? std::string() : names_.of(graph, v));
  for (ValueId v : node.outputs) proto->add_output(v == kNone ? std::string() : names_.of(graph, v));
  if (!node.name.empty()) proto->set_name(node.name);
  proto->set_op_type(node.op);
  if (!node.domain.empty()) proto->set_domain(node.domain);
  if (!node.overload.empty()) proto->set_overload(node.overload);
  if (!node.doc.empty()) proto->set_doc_string(node.doc);
  encode_metadata(node.metadata, proto->mutable_metadata_props());
  for (const Attribute& a : node.attributes) write_attribute(a, proto->add_attribute());
}

void GraphWriter::write_attribute(const Attribute& attribute, A* proto) {
  std::visit(
      [&](const auto& data) {
        using T = std::decay_t<decltype(data)>;
        if constexpr (std::is_same_v<T, Attribute::Opaque>) {
          proto->ParseFromString(data.serialized);
        } else if constexpr (std::is_same_v<T, int64_t>) {
          proto->set_type(A::INT), proto->set_i(data);
        } else if constexpr (std::is_same_v<T, float>) {
          proto->set_type(A::FLOAT), proto->set_f(data);
        } else if constexpr (std::is_same_v<T, std::string>) {
          proto->set_type(A::STRING), proto->set_s(data);
        } else if constexpr (std::is_same_v<T, Tensor>) {
          proto->set_type(A::TENSOR), put_(data, proto->mutable_t());
        } else if constexpr (std::is_same_v<T, std::shared_ptr<Graph>>) {
          proto->set_type(A::GRAPH), write(*data, proto->mutable_g(), true);
        } else if constexpr (std::is_same_v<T, std::vector<int64_t>>) {
          proto->set_type(A::INTS), proto->mutable_ints()->Add(data.begin(), data.end());
        } else if constexpr (std::is_same_v<T, std::vector<float>>) {
          proto->set_type(A::FLOATS), proto->mutable_floats()->Add(data.begin(), data.end());
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          proto->set_type(A::STRINGS);
          for (const auto& s : data) proto->add_strings(s);
        } else if constexpr (std::is_same_v<T, std::vector<Tensor>>) {
          proto->set_type(A::TENSORS);
          for (const auto& t : data) put_(t, proto->add_tensors());
        } else {
          proto->set_type(A::GRAPHS);
          for (const auto& g : data) write(*g, proto->add_graphs(), true);
        }
      },
      attribute.data);
  proto->set_name(attribute.name);
  if (!attribute.reference.empty()) proto->set_ref_attr_name(attribute.reference);
}

onnx::ModelProto make_model_proto(const Model& model, ValueNames& names, const PutTensor& put, bool sparse) {
  onnx::ModelProto proto;
  proto.ParseFromString(model.opaque);
  proto.set_ir_version(std::max(model.ir_version, ir_needed(*model.graph)));
  proto.set_producer_name(model.producer_name);
  proto.set_producer_version(model.producer_version);
  if (!model.domain.empty()) proto.set_domain(model.domain);
  proto.set_model_version(model.model_version);
  if (!model.doc.empty()) proto.set_doc_string(model.doc);
  encode_metadata(model.metadata, proto.mutable_metadata_props());
  for (const auto& [domain, version] : model.graph->opsets) {
    auto* entry = proto.add_opset_import();
    entry->set_domain(domain);
    entry->set_version(version);
  }
  for (const auto& f : model.functions) proto.add_functions()->ParseFromString(f);
  GraphWriter(names, put, sparse).write(*model.graph, proto.mutable_graph());
  return proto;
}

}  // namespace infopt
