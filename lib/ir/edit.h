// The only way to change a Graph. Keeps uses, producers and bodies' outer values consistent, and records what it did.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "lib/ir/graph.h"

namespace infopt {

struct EditLog {
  int64_t nodes_added = 0, nodes_removed = 0, constants_added = 0, values_replaced = 0, attributes_changed = 0;
  /// One line a noteworthy change, in order: what a report lists under the pass.
  std::vector<std::string> notes;
  bool changed() const { return nodes_added || nodes_removed || constants_added || values_replaced || attributes_changed; }
};

class GraphEdit {
 public:
  explicit GraphEdit(Graph& graph) : graph_(graph) {}
  ~GraphEdit();  ///< finish()
  GraphEdit(const GraphEdit&) = delete;
  GraphEdit& operator=(const GraphEdit&) = delete;

  const Graph& graph() const { return graph_; }
  Graph* operator->() { return &graph_; }  ///< for opsets, names and metadata
  EditLog& log() { return log_; }
  void note(std::string line) { log_.notes.push_back(std::move(line)); }

  // Values
  ValueId add_value(std::string name = {}, Type type = {});
  ValueId add_input(std::string name, Type type);
  ValueId add_constant(Tensor tensor, std::string name = {});
  ValueId add_outer(ValueId parent_value, std::string name = {}, Type type = {});
  void set_constant(ValueId value, Tensor tensor);
  void set_type(ValueId value, Type type);
  void set_name(ValueId value, std::string name);
  void set_value_doc(ValueId value, std::string doc);
  void set_outer(ValueId value, ValueId parent_value);
  void remove_input(ValueId value);
  void set_graph_input(ValueId value, bool is_input);
  void add_output(ValueId value);
  void set_output(size_t index, ValueId value);
  void remove_output(size_t index);  ///< those behind it move up
  Value& value_for_import(ValueId value) { return graph_.values_[static_cast<size_t>(value)]; }

  // Nodes
  struct NewNode {
    std::string op, domain = {}, name = {};
    std::vector<Attribute> attributes = {};
  };
  /// Makes a node with one fresh output value (or the given ones) and returns its id. It is placed before `before` where
  /// that is given, else at the end; finish() puts the whole order right in any case.
  NodeId add_node(NewNode spec, std::vector<ValueId> inputs, std::vector<ValueId> outputs, NodeId before = kNone);
  /// The same, with one fresh output, which it returns.
  ValueId add(NewNode spec, std::vector<ValueId> inputs, NodeId before = kNone);
  /// Outputs must be unused. Constants and values that only it used stay; see passes/optimize/remove_dead.
  void remove_node(NodeId id);
  void set_input(NodeId node, size_t index, ValueId value);  ///< extends the inputs with kNone where needed
  void set_inputs(NodeId node, std::vector<ValueId> inputs);
  /// The node no longer makes this output, which must be unused and goes away.
  void drop_output(NodeId node, size_t index);
  /// The same, and the outputs behind it move up: for a Loop's and a Scan's, which follow their body's.
  void erase_output(NodeId node, size_t index);
  /// The node makes `value`, which nothing makes yet, instead of its output; that value then waits for a new producer.
  void replace_output(NodeId node, size_t index, ValueId value);
  void set_op(NodeId node, std::string op, std::string domain = {});
  void set_node_name(NodeId node, std::string name);
  void set_attribute(NodeId node, std::string name, Attribute::Data data);
  void remove_attribute(NodeId node, std::string_view name);
  void set_captures(NodeId node, std::vector<ValueId> captures);
  Node& node_for_import(NodeId node) { return graph_.nodes_[static_cast<size_t>(node)]; }
  /// Every use of `from` (inputs, bodies, graph outputs) becomes a use of `to`. Where `from` is a graph output, `to`
  /// takes over its name, so that the model's interface stays.
  void replace_uses(ValueId from, ValueId to);
  /// Whether replace_uses keeps the model's interface: not where `from` is a graph output and `to` is an input, a
  /// constant, an outer value or an output already.
  bool replaceable(ValueId from, ValueId to) const;
  /// The same for all uses but those by `except`.
  void replace_uses_except(ValueId from, ValueId to, NodeId except);
  /// Removes a value that nobody makes or uses.
  void remove_value(ValueId value);

  /// Makes the graph what `other` is: to take back what this edit did, for example. The log stays.
  void restore(const Graph& other);

  /// Restores a stable topological order. Throws Error(Malformed) naming a node where there is a cycle.
  void finish();

 private:
  void drop_use(ValueId value, Use use);
  void replace_captured(NodeId node, ValueId from, ValueId to);
  Graph& graph_;
  EditLog log_;
  bool dirty_ = false;
};

}  // namespace infopt
