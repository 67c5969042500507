// One GraphProto into a Graph. Only for files of lib/onnx.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "lib/ir/edit.h"
#include "lib/onnx/proto.h"

namespace infopt {

class GraphReader {
 public:
  /// What the whole model shares.
  struct Context {
    TensorSource& source;
    int64_t ir_version;
    std::map<std::string, int64_t> opsets;
  };

  GraphReader(const onnx::GraphProto& proto, Context& context, GraphReader* parent = nullptr);
  /// Throws Error(Malformed) naming node and value where the graph contradicts itself.
  std::shared_ptr<Graph> read();

 private:
  ValueId declare(const std::string& name, const std::string& by);
  ValueId resolve(const std::string& name);  ///< kNone where neither this graph nor those around it have it
  void read_inputs();
  void read_initializers();
  void read_initializer(const std::string& name, Tensor tensor);
  void read_sparse_initializers();
  void declare_node_outputs();
  void read_types();
  void read_node(const onnx::NodeProto& node);
  void read_outputs();
  void annotate(ValueId id, const onnx::ValueInfoProto& info);
  Attribute read_attribute(const onnx::AttributeProto& proto);

  const onnx::GraphProto& proto_;
  Context& context_;
  GraphReader* parent_;
  std::shared_ptr<Graph> graph_ = std::make_shared<Graph>();
  GraphEdit edit_{*graph_};
  std::unordered_map<std::string, ValueId> names_;
};

}  // namespace infopt
