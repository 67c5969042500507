// The graph that everything works on: values and nodes by id, each value knowing its producer and its uses.
// Const to everyone but a GraphEdit (lib/ir/edit.h), the model's importer included.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "lib/base/tensor.h"

namespace infopt {

using ValueId = int32_t;
using NodeId = int32_t;
inline constexpr int32_t kNone = -1;

/// One dimension of a declared shape: a size, or -1 where it is unknown, perhaps with a symbol that names it.
struct Dim {
  int64_t size = -1;
  std::string symbol;
  bool operator==(const Dim&) const = default;
};

/// What is declared or known of a value. `opaque` is the serialized type of what isn't a tensor (sequence, optional, map, sparse).
struct Type {
  DType dtype = DType::Undefined;
  bool has_shape = false;
  std::vector<Dim> shape;
  std::string opaque;

  static Type tensor(DType dtype, const Shape& shape);
  /// The shape, where every dimension is known.
  std::optional<Shape> fixed_shape() const;
};

class Graph;

struct Attribute {
  /// What ONNX has and infopt doesn't look into: sparse tensors, types. Written back as read.
  struct Opaque { std::string serialized; };
  using Data = std::variant<int64_t, float, std::string, Tensor, std::shared_ptr<Graph>, std::vector<int64_t>, std::vector<float>,
                            std::vector<std::string>, std::vector<Tensor>, std::vector<std::shared_ptr<Graph>>, Opaque>;
  std::string name;
  Data data;
  std::string reference;  ///< in a function's body: the function's attribute that it takes its value from
};

struct Node {
  NodeId id = kNone;
  std::string name, domain, op, overload, doc;  ///< the default domain is ""
  std::vector<ValueId> inputs, outputs;         ///< kNone where an optional one is left out
  std::vector<Attribute> attributes;
  std::vector<ValueId> captures;                ///< values of this graph that the bodies in the attributes read
  std::vector<std::pair<std::string, std::string>> metadata;

  bool is(std::string_view op_name) const { return domain.empty() && op == op_name; }
  const Attribute* find(std::string_view attribute) const;
  template <class T> const T* get(std::string_view attribute) const {
    const Attribute* a = find(attribute);
    return a ? std::get_if<T>(&a->data) : nullptr;
  }
  int64_t i(std::string_view attribute, int64_t otherwise) const;
  float f(std::string_view attribute, float otherwise) const;
  std::string s(std::string_view attribute, std::string otherwise) const;
  std::vector<int64_t> ints(std::string_view attribute, std::vector<int64_t> otherwise = {}) const;
  std::vector<float> floats(std::string_view attribute) const;
  ValueId input(size_t i) const { return i < inputs.size() ? inputs[i] : kNone; }
  /// The graphs in its attributes (If's branches, Loop's and Scan's bodies), in attribute order.
  std::vector<std::shared_ptr<Graph>> bodies() const;
};

/// `index` is the input's position; -1 where a body of the node reads it, kGraphOutput where the graph gives it out.
struct Use {
  NodeId node = kNone;
  int index = 0;
  bool operator==(const Use&) const = default;
};
inline constexpr int kCapture = -1, kGraphOutput = -2;

struct Value {
  ValueId id = kNone;
  std::string name;             ///< unique in its graph; may be empty until export gives it one
  Type type;
  NodeId producer = kNone;
  int output_index = 0;
  bool graph_input = false;
  Tensor constant;              ///< of an initializer (also where it is a graph input's default: such a value isn't constant, see is_constant)
  ValueId outer = kNone;        ///< in a body: the parent graph's value that this one stands for
  std::string doc;
  std::vector<Use> uses;        ///< graph outputs included
  std::vector<std::pair<std::string, std::string>> metadata;

  /// True where it has the same known elements in every run.
  bool is_constant() const { return constant.defined() && !graph_input && outer == kNone; }
};

class Graph {
 public:
  const Node& node(NodeId id) const { return nodes_[static_cast<size_t>(id)]; }
  const Value& value(ValueId id) const { return values_[static_cast<size_t>(id)]; }
  /// In a topological order, as long as no GraphEdit is open.
  const std::vector<NodeId>& order() const { return order_; }
  const std::vector<ValueId>& inputs() const { return inputs_; }
  const std::vector<ValueId>& outputs() const { return outputs_; }
  /// One past the largest id ever given; ids of removed things stay unused.
  size_t value_capacity() const { return values_.size(); }
  size_t node_capacity() const { return nodes_.size(); }
  bool alive(NodeId id) const { return id >= 0 && static_cast<size_t>(id) < nodes_.size() && nodes_[static_cast<size_t>(id)].id == id; }
  bool value_alive(ValueId id) const { return id >= 0 && static_cast<size_t>(id) < values_.size() && values_[static_cast<size_t>(id)].id == id; }

  /// The node that makes a value, null for inputs, initializers and outer values.
  const Node* producer(ValueId id) const;
  /// The constant behind an input of a node: an initializer or a Constant node's tensor; null where there is none.
  const Tensor* constant(ValueId id) const;
  /// The node that reads the value, if there is exactly one use and it is no graph output or capture; null else.
  const Node* sole_consumer(ValueId id) const;
  bool is_output(ValueId id) const;
  ValueId find_value(std::string_view name) const;  ///< kNone where there is none; linear
  /// What a report calls a node: its name, or its operator and first output.
  std::string label(NodeId id) const;

  int64_t opset(const std::string& domain = "") const;  ///< 0 where the domain isn't imported
  std::map<std::string, int64_t> opsets;
  std::string name, doc;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::string quantization_annotations;  ///< serialized, kept as read

  /// A deep copy: the bodies in attributes are copied too; tensors share their memory.
  std::shared_ptr<Graph> clone() const;

 private:
  friend class GraphEdit;
  // Deques: references to nodes and values stay good while a GraphEdit adds more.
  std::deque<Node> nodes_;
  std::deque<Value> values_;
  std::vector<NodeId> order_;
  std::vector<ValueId> inputs_, outputs_;
};

/// A model: its graph and what the file says besides.
struct Model {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  int64_t ir_version = 8, model_version = 0;
  std::string producer_name, producer_version, domain, doc;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<std::string> functions;  ///< model-local functions, serialized, kept as read
  std::string opaque;                  ///< serialized rest of the model (training info, device configurations), kept as read
  std::string path;                    ///< where it was read from
  std::vector<std::string> external_files;  ///< of its weights, relative to its folder
};

}  // namespace infopt
