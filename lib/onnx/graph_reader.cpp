#include "lib/onnx/graph_reader.h"

#include <algorithm>
#include <cstring>

namespace infopt {
namespace {

constexpr uint64_t kMaxDensified = uint64_t{1} << 30;

/// Runs `work`; an Error in it gets `where` in front.
template <class Work>
auto at(const std::string& where, Work work) {
  try {
    return work();
  } catch (const Error& e) {
    throw e.within(where);
  }
}

std::string label(const onnx::NodeProto& node) {
  std::string text = "node ";
  text += node.name().empty() ? "of " + node.op_type() : "'" + node.name() + "' (" + node.op_type() + ")";
  return text;
}

std::string quoted(const std::string& name) { return "'" + name + "'"; }

/// ONNX writes few zeros of a tensor nowhere: indices are flat ([n]) or one row of coordinates an element ([n, rank]).
Tensor densify(const onnx::SparseTensorProto& proto, TensorSource& source) {
  const Tensor values = decode_tensor(proto.values(), source), indices = decode_tensor(proto.indices(), source);
  const Shape shape(proto.dims().begin(), proto.dims().end());
  const int64_t total = element_count(shape), count = values.size(), rank = static_cast<int64_t>(shape.size());
  const size_t width = bits_of(values.dtype()) / 8;
  if (width == 0) throw Error(ErrorKind::Unsupported, "a sparse tensor of " + std::string(name_of(values.dtype())));
  if (bytes_of(values.dtype(), total) > kMaxDensified) throw Error(ErrorKind::Limit, "a sparse tensor of shape " + to_string(shape));
  const bool flat = indices.shape() == Shape{count};
  if (indices.dtype() != DType::I64 || values.rank() != 1 || (!flat && indices.shape() != Shape{count, rank}))
    throw Error(ErrorKind::Malformed, "a sparse tensor's indices don't fit its values");
  Tensor dense = Tensor::zeros(values.dtype(), shape);
  for (int64_t i = 0; i < count; ++i) {
    int64_t at = flat ? indices.data<int64_t>()[i] : 0;
    for (int64_t a = 0; !flat && a < rank; ++a) {
      const int64_t index = indices.data<int64_t>()[i * rank + a];
      if (index < 0 || index >= shape[static_cast<size_t>(a)]) throw Error(ErrorKind::Malformed, "a sparse tensor's index is out of range");
      at = at * shape[static_cast<size_t>(a)] + index;
    }
    if (at < 0 || at >= total) throw Error(ErrorKind::Malformed, "a sparse tensor's index is out of range");
    std::memcpy(dense.mutable_raw() + static_cast<size_t>(at) * width, values.raw() + static_cast<size_t>(i) * width, width);
  }
  return dense;
}

/// Before IR version 2 attributes had no type: then it is the field that is there.
int attribute_type(const onnx::AttributeProto& a) {
  using A = onnx::AttributeProto;
  if (a.type() != A::UNDEFINED) return a.type();
  if (a.has_f()) return A::FLOAT;
  if (a.has_i()) return A::INT;
  if (a.has_s()) return A::STRING;
  if (a.has_t()) return A::TENSOR;
  if (a.has_g()) return A::GRAPH;
  if (a.floats_size()) return A::FLOATS;
  if (a.strings_size()) return A::STRINGS;
  if (a.tensors_size()) return A::TENSORS;
  if (a.graphs_size()) return A::GRAPHS;
  return A::INTS;
}

}  // namespace

GraphReader::GraphReader(const onnx::GraphProto& proto, Context& context, GraphReader* parent)
    : proto_(proto), context_(context), parent_(parent) {}

std::shared_ptr<Graph> GraphReader::read() {
  graph_->opsets = context_.opsets;
  graph_->name = proto_.name();
  graph_->doc = proto_.doc_string();
  graph_->metadata = decode_metadata(proto_.metadata_props());
  if (proto_.quantization_annotation_size()) {
    onnx::GraphProto only;
    *only.mutable_quantization_annotation() = proto_.quantization_annotation();
    graph_->quantization_annotations = only.SerializeAsString();
  }
  read_inputs();
  read_initializers();
  read_sparse_initializers();
  declare_node_outputs();
  read_types();
  for (const auto& node : proto_.node()) at(label(node), [&] { read_node(node); });
  read_outputs();
  edit_.finish();
  return graph_;
}

ValueId GraphReader::declare(const std::string& name, const std::string& by) {
  if (name.empty()) throw Error(ErrorKind::Malformed, "has no name", by);
  const auto [it, fresh] = names_.emplace(name, kNone);
  if (!fresh) throw Error(ErrorKind::Malformed, "defines the value " + quoted(name) + ", which is defined already", by);
  return it->second = edit_.add_value(name);
}

ValueId GraphReader::resolve(const std::string& name) {
  const auto it = names_.find(name);
  if (it != names_.end()) return it->second;
  if (!parent_) return kNone;
  const ValueId above = parent_->resolve(name);
  if (above == kNone) return kNone;
  return names_[name] = edit_.add_outer(above, name, parent_->graph_->value(above).type);
}

void GraphReader::annotate(ValueId id, const onnx::ValueInfoProto& info) {
  Value& v = edit_.value_for_import(id);
  Type type = at("value " + quoted(info.name()), [&] { return decode_type(info.type()); });
  if (!v.constant.defined() && (type.dtype != DType::Undefined || !type.opaque.empty())) v.type = std::move(type);
  if (!info.doc_string().empty()) v.doc = info.doc_string();
  if (info.metadata_props_size()) v.metadata = decode_metadata(info.metadata_props());
}

void GraphReader::read_inputs() {
  for (const auto& info : proto_.input()) {
    const ValueId id = declare(info.name(), "a graph input");
    edit_.set_graph_input(id, true);
    annotate(id, info);
  }
}

void GraphReader::read_initializers() {
  for (const auto& proto : proto_.initializer()) {
    Tensor tensor = at("tensor " + quoted(proto.name()), [&] { return decode_tensor(proto, context_.source); });
    read_initializer(proto.name(), std::move(tensor));
    Value& v = edit_.value_for_import(names_.at(proto.name()));
    if (v.doc.empty()) v.doc = proto.doc_string();
    if (v.metadata.empty()) v.metadata = decode_metadata(proto.metadata_props());
  }
}

void GraphReader::read_initializer(const std::string& name, Tensor tensor) {
  const auto it = names_.find(name);
  if (it == names_.end()) {
    edit_.set_constant(declare(name, "an initializer"), std::move(tensor));
    return;
  }
  const Value& v = graph_->value(it->second);
  if (v.constant.defined()) throw Error(ErrorKind::Malformed, "there are two initializers of this name", "tensor " + quoted(name));
  if (v.type.dtype != DType::Undefined && v.type.dtype != tensor.dtype())
    throw Error(ErrorKind::Malformed,
                "is " + std::string(name_of(tensor.dtype())) + ", but the graph input is declared " + std::string(name_of(v.type.dtype)),
                "tensor " + quoted(name));
  if (context_.ir_version < 4) {
    edit_.set_graph_input(it->second, false);
    edit_.set_constant(it->second, std::move(tensor));
  } else {
    Type declared = v.type;
    edit_.set_constant(it->second, std::move(tensor));
    if (declared.dtype != DType::Undefined) edit_.set_type(it->second, std::move(declared));
  }
}

void GraphReader::read_sparse_initializers() {
  for (const auto& proto : proto_.sparse_initializer()) {
    const std::string& name = proto.values().name();
    read_initializer(name, at("tensor " + quoted(name), [&] { return densify(proto, context_.source); }));
  }
}

void GraphReader::declare_node_outputs() {
  for (const auto& node : proto_.node())
    for (const auto& name : node.output())
      if (!name.empty()) declare(name, label(node));
}

void GraphReader::read_types() {
  for (const auto& info : proto_.value_info()) {
    const auto it = names_.find(info.name());
    if (it != names_.end() && !graph_->value(it->second).graph_input) annotate(it->second, info);
  }
  for (const auto& info : proto_.output()) {
    const auto it = names_.find(info.name());
    if (it != names_.end() && !graph_->value(it->second).graph_input) annotate(it->second, info);
  }
}

void GraphReader::read_node(const onnx::NodeProto& proto) {
  if (proto.op_type().empty()) throw Error(ErrorKind::Malformed, "has no operator");
  std::vector<ValueId> inputs, outputs;
  for (const auto& name : proto.input()) {
    inputs.push_back(name.empty() ? kNone : resolve(name));
    if (!name.empty() && inputs.back() == kNone)
      throw Error(ErrorKind::Malformed, "reads the value " + quoted(name) + ", which nothing defines");
  }
  for (const auto& name : proto.output()) outputs.push_back(name.empty() ? kNone : names_.at(name));
  GraphEdit::NewNode spec{proto.op_type(), canonical_domain(proto.domain()), proto.name(), {}};
  std::vector<ValueId> captures;
  for (const auto& a : proto.attribute()) {
    spec.attributes.push_back(at("attribute " + quoted(a.name()), [&] { return read_attribute(a); }));
    if (std::count_if(spec.attributes.begin(), spec.attributes.end(), [&](const Attribute& b) { return b.name == a.name(); }) > 1)
      throw Error(ErrorKind::Malformed, "has the attribute " + quoted(a.name()) + " twice");
  }
  const NodeId id = edit_.add_node(std::move(spec), std::move(inputs), std::move(outputs));
  for (const auto& body : graph_->node(id).bodies())
    for (size_t v = 0; v < body->value_capacity(); ++v)
      if (body->value(static_cast<ValueId>(v)).outer != kNone) captures.push_back(body->value(static_cast<ValueId>(v)).outer);
  std::sort(captures.begin(), captures.end());
  captures.erase(std::unique(captures.begin(), captures.end()), captures.end());
  if (!captures.empty()) edit_.set_captures(id, std::move(captures));
  Node& node = edit_.node_for_import(id);
  node.overload = proto.overload();
  node.doc = proto.doc_string();
  node.metadata = decode_metadata(proto.metadata_props());
}

Attribute GraphReader::read_attribute(const onnx::AttributeProto& a) {
  using A = onnx::AttributeProto;
  Attribute out{a.name(), {}, a.ref_attr_name()};
  auto graph = [&](const onnx::GraphProto& g) { return GraphReader(g, context_, this).read(); };
  switch (attribute_type(a)) {
    case A::FLOAT: out.data = a.f(); break;
    case A::INT: out.data = a.i(); break;
    case A::STRING: out.data = a.s(); break;
    case A::TENSOR: out.data = decode_tensor(a.t(), context_.source); break;
    case A::GRAPH: out.data = graph(a.g()); break;
    case A::FLOATS: out.data = std::vector<float>(a.floats().begin(), a.floats().end()); break;
    case A::INTS: out.data = std::vector<int64_t>(a.ints().begin(), a.ints().end()); break;
    case A::STRINGS: out.data = std::vector<std::string>(a.strings().begin(), a.strings().end()); break;
    case A::TENSORS: {
      std::vector<Tensor> tensors;
      for (const auto& t : a.tensors()) tensors.push_back(decode_tensor(t, context_.source));
      out.data = std::move(tensors);
      break;
    }
    case A::GRAPHS: {
      std::vector<std::shared_ptr<Graph>> graphs;
      for (const auto& g : a.graphs()) graphs.push_back(graph(g));
      out.data = std::move(graphs);
      break;
    }
    default: out.data = Attribute::Opaque{a.SerializeAsString()};
  }
  return out;
}

void GraphReader::read_outputs() {
  for (const auto& info : proto_.output()) {
    if (info.name().empty()) throw Error(ErrorKind::Malformed, "a graph output has no name");
    const ValueId id = resolve(info.name());
    if (id == kNone) throw Error(ErrorKind::Malformed, "nothing defines it", "graph output " + quoted(info.name()));
    edit_.add_output(id);
  }
}

}  // namespace infopt
