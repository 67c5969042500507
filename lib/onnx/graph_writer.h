// A Graph into a GraphProto. Only for files of lib/onnx.
#pragma once
#include <functional>
#include <string>

#include "lib/onnx/names.h"
#include "lib/onnx/proto.h"

namespace infopt {

/// How a tensor is put into its message: whole, or with its data elsewhere.
using PutTensor = std::function<void(const Tensor&, onnx::TensorProto*)>;

class GraphWriter {
 public:
  /// `sparse`: constants that are smaller so become sparse initializers.
  GraphWriter(ValueNames& names, PutTensor put, bool sparse = false) : names_(names), put_(std::move(put)), sparse_(sparse) {}
  void write(const Graph& graph, onnx::GraphProto* proto, bool is_body = false);
  void write_node(const Graph& graph, const Node& node, onnx::NodeProto* proto);
  void write_attribute(const Attribute& attribute, onnx::AttributeProto* proto);

 private:
  void write_values(const Graph& graph, onnx::GraphProto* proto, bool sparse);
  void write_outputs(const Graph& graph, onnx::GraphProto* proto, bool is_body);
  void write_info(const Graph& graph, ValueId id, onnx::ValueInfoProto* proto);
  void write_annotations(const Graph& graph, onnx::GraphProto* proto);

  ValueNames& names_;
  PutTensor put_;
  bool sparse_;
};

/// The whole model, its IR version raised to what opset, element types and inputs need.
onnx::ModelProto make_model_proto(const Model& model, ValueNames& names, const PutTensor& put, bool sparse = false);

/// Puts tensors of up to kInlineBytes bytes (and strings) whole and leaves out the data of larger ones.
void put_small(const Tensor& tensor, onnx::TensorProto* proto);

}  // namespace infopt
