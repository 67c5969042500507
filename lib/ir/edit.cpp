#include "lib/ir/edit.h"

#include <algorithm>
#include <queue>

#include "lib/base/error.h"

namespace infopt {
namespace {

void erase_use(std::vector<Use>& uses, Use use) {
  const auto it = std::find(uses.begin(), uses.end(), use);
  if (it != uses.end()) uses.erase(it);
}

}  // namespace

GraphEdit::~GraphEdit() {
  try {
    finish();
  } catch (const Error&) {  // a cycle was there before this edit, or finish() was called and has told of it
  }
}

ValueId GraphEdit::add_value(std::string name, Type type) {
  const ValueId id = static_cast<ValueId>(graph_.values_.size());
  Value v;
  v.id = id;
  v.name = std::move(name);
  v.type = std::move(type);
  graph_.values_.push_back(std::move(v));
  return id;
}

ValueId GraphEdit::add_input(std::string name, Type type) {
  const ValueId id = add_value(std::move(name), std::move(type));
  set_graph_input(id, true);
  return id;
}

ValueId GraphEdit::add_constant(Tensor tensor, std::string name) {
  const ValueId id = add_value(std::move(name), Type::tensor(tensor.dtype(), tensor.shape()));
  graph_.values_[static_cast<size_t>(id)].constant = std::move(tensor);
  ++log_.constants_added;
  return id;
}

ValueId GraphEdit::add_outer(ValueId parent_value, std::string name, Type type) {
  const ValueId id = add_value(std::move(name), std::move(type));
  graph_.values_[static_cast<size_t>(id)].outer = parent_value;
  return id;
}

void GraphEdit::set_constant(ValueId value, Tensor tensor) {
  Value& v = graph_.values_[static_cast<size_t>(value)];
  v.type = Type::tensor(tensor.dtype(), tensor.shape());
  v.constant = std::move(tensor);
  ++log_.constants_added;
}

void GraphEdit::set_type(ValueId value, Type type) { graph_.values_[static_cast<size_t>(value)].type = std::move(type); }
void GraphEdit::set_name(ValueId value, std::string name) { graph_.values_[static_cast<size_t>(value)].name = std::move(name); }
void GraphEdit::set_value_doc(ValueId value, std::string doc) { graph_.values_[static_cast<size_t>(value)].doc = std::move(doc); }
void GraphEdit::set_outer(ValueId value, ValueId parent_value) { graph_.values_[static_cast<size_t>(value)].outer = parent_value; }

void GraphEdit::remove_input(ValueId value) { set_graph_input(value, false); }

void GraphEdit::set_graph_input(ValueId value, bool is_input) {
  Value& v = graph_.values_[static_cast<size_t>(value)];
  if (v.graph_input == is_input) return;
  v.graph_input = is_input;
  if (is_input) graph_.inputs_.push_back(value);
  else std::erase(graph_.inputs_, value);
}

void GraphEdit::add_output(ValueId value) {
  graph_.values_[static_cast<size_t>(value)].uses.push_back({kNone, kGraphOutput});
  graph_.outputs_.push_back(value);
}

void GraphEdit::set_output(size_t index, ValueId value) {
  drop_use(graph_.outputs_[index], {kNone, kGraphOutput});
  graph_.outputs_[index] = value;
  graph_.values_[static_cast<size_t>(value)].uses.push_back({kNone, kGraphOutput});
}

void GraphEdit::remove_output(size_t index) {
  drop_use(graph_.outputs_[index], {kNone, kGraphOutput});
  graph_.outputs_.erase(graph_.outputs_.begin() + static_cast<std::ptrdiff_t>(index));
}

NodeId GraphEdit::add_node(NewNode spec, std::vector<ValueId> inputs, std::vector<ValueId> outputs, NodeId before) {
  const NodeId id = static_cast<NodeId>(graph_.nodes_.size());
  Node n;
  n.id = id;
  n.op = std::move(spec.op);
  n.domain = std::move(spec.domain);
  n.name = std::move(spec.name);
  n.attributes = std::move(spec.attributes);
  n.outputs = std::move(outputs);
  graph_.nodes_.push_back(std::move(n));
  Node& node = graph_.nodes_.back();
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == kNone) continue;
    Value& v = graph_.values_[static_cast<size_t>(node.outputs[i])];
    v.producer = id;
    v.output_index = static_cast<int>(i);
  }
  set_inputs(id, std::move(inputs));
  const auto at = before == kNone ? graph_.order_.end() : std::find(graph_.order_.begin(), graph_.order_.end(), before);
  graph_.order_.insert(at, id);
  ++log_.nodes_added;
  dirty_ = true;
  return id;
}

ValueId GraphEdit::add(NewNode spec, std::vector<ValueId> inputs, NodeId before) {
  const ValueId out = add_value();
  add_node(std::move(spec), std::move(inputs), {out}, before);
  return out;
}

void GraphEdit::remove_node(NodeId id) {
  Node& n = graph_.nodes_[static_cast<size_t>(id)];
  for (ValueId o : n.outputs) {
    if (o == kNone) continue;
    Value& v = graph_.values_[static_cast<size_t>(o)];
    if (!v.uses.empty()) throw Error(ErrorKind::Defect, "a node was removed whose output is used", graph_.label(id));
    v = Value{};
  }
  for (size_t i = 0; i < n.inputs.size(); ++i) drop_use(n.inputs[i], {id, static_cast<int>(i)});
  for (ValueId c : n.captures) drop_use(c, {id, kCapture});
  n = Node{};
  std::erase(graph_.order_, id);
  ++log_.nodes_removed;
}

void GraphEdit::drop_use(ValueId value, Use use) {
  if (value != kNone) erase_use(graph_.values_[static_cast<size_t>(value)].uses, use);
}

void GraphEdit::set_input(NodeId node, size_t index, ValueId value) {
  Node& n = graph_.nodes_[static_cast<size_t>(node)];
  if (n.inputs.size() <= index) n.inputs.resize(index + 1, kNone);
  const Use use{node, static_cast<int>(index)};
  drop_use(n.inputs[index], use);
  n.inputs[index] = value;
  if (value != kNone) graph_.values_[static_cast<size_t>(value)].uses.push_back(use);
  ++log_.values_replaced;
  dirty_ = true;
}

void GraphEdit::set_inputs(NodeId node, std::vector<ValueId> inputs) {
  Node& n = graph_.nodes_[static_cast<size_t>(node)];
  for (size_t i = 0; i < n.inputs.size(); ++i) drop_use(n.inputs[i], {node, static_cast<int>(i)});
  n.inputs = std::move(inputs);
  for (size_t i = 0; i < n.inputs.size(); ++i)
    if (n.inputs[i] != kNone) graph_.values_[static_cast<size_t>(n.inputs[i])].uses.push_back({node, static_cast<int>(i)});
  dirty_ = true;
}

void GraphEdit::drop_output(NodeId node, size_t index) {
  Node& n = graph_.nodes_[static_cast<size_t>(node)];
  Value& v = graph_.values_[static_cast<size_t>(n.outputs[index])];
  if (!v.uses.empty()) throw Error(ErrorKind::Defect, "an output in use was dropped", v.name);
  v = Value{};
  n.outputs[index] = kNone;
  while (!n.outputs.empty() && n.outputs.back() == kNone) n.outputs.pop_back();
  ++log_.values_replaced;
}

void GraphEdit::erase_output(NodeId node, size_t index) {
  std::vector<ValueId>& outputs = graph_.nodes_[static_cast<size_t>(node)].outputs;
  if (index < outputs.size() && outputs[index] != kNone) drop_output(node, index);
  if (index >= outputs.size()) return;
  outputs.erase(outputs.begin() + static_cast<std::ptrdiff_t>(index));
  for (size_t i = index; i < outputs.size(); ++i)
    if (outputs[i] != kNone) graph_.values_[static_cast<size_t>(outputs[i])].output_index = static_cast<int>(i);
}

void GraphEdit::replace_output(NodeId node, size_t index, ValueId value) {
  Node& n = graph_.nodes_[static_cast<size_t>(node)];
  Value& old = graph_.values_[static_cast<size_t>(n.outputs[index])];
  old.producer = kNone;
  old.output_index = 0;
  n.outputs[index] = value;
  Value& v = graph_.values_[static_cast<size_t>(value)];
  v.producer = node;
  v.output_index = static_cast<int>(index);
  ++log_.values_replaced;
  dirty_ = true;
}

void GraphEdit::set_op(NodeId node, std::string op, std::string domain) {
  Node& n = graph_.nodes_[static_cast<size_t>(node)];
  n.op = std::move(op);
  n.domain = std::move(domain);
  ++log_.attributes_changed;
}

void GraphEdit::set_node_name(NodeId node, std::string name) { graph_.nodes_[static_cast<size_t>(node)].name = std::move(name); }

void GraphEdit::set_attribute(NodeId node, std::string name, Attribute::Data data) {
  Node& n = graph_.nodes_[static_cast<size_t>(node)];
  ++log_.attributes_changed;
  for (Attribute& a : n.attributes)
    if (a.name == name) {
      a.data = std::move(data);
      a.reference.clear();
      return;
    }
  n.attributes.push_back({std::move(name), std::move(data), {}});
}

void GraphEdit::remove_attribute(NodeId node, std::string_view name) {
  std::erase_if(graph_.nodes_[static_cast<size_t>(node)].attributes, [&](const Attribute& a) { return a.name == name; });
  ++log_.attributes_changed;
}

void GraphEdit::set_captures(NodeId node, std::vector<ValueId> captures) {
  Node& n = graph_.nodes_[static_cast<size_t>(node)];
  for (ValueId c : n.captures) drop_use(c, {node, kCapture});
  n.captures = std::move(captures);
  for (ValueId c : n.captures) graph_.values_[static_cast<size_t>(c)].uses.push_back({node, kCapture});
  dirty_ = true;
}

void GraphEdit::replace_captured(NodeId node, ValueId from, ValueId to) {
  Node& n = graph_.nodes_[static_cast<size_t>(node)];
  for (const auto& body : n.bodies())
    for (Value& v : body->values_)
      if (v.id != kNone && v.outer == from) v.outer = to;
  std::vector<ValueId> captures = n.captures;
  std::replace(captures.begin(), captures.end(), from, to);
  std::sort(captures.begin(), captures.end());
  captures.erase(std::unique(captures.begin(), captures.end()), captures.end());
  set_captures(node, std::move(captures));
}

bool GraphEdit::replaceable(ValueId from, ValueId to) const {
  const Value& v = graph_.value(to);
  return !graph_.is_output(from) || (!v.graph_input && !v.constant.defined() && v.outer == kNone && !graph_.is_output(to));
}

void GraphEdit::replace_uses(ValueId from, ValueId to) { replace_uses_except(from, to, kNone - 1); }

void GraphEdit::replace_uses_except(ValueId from, ValueId to, NodeId except) {
  if (from == to) return;
  const std::vector<Use> uses = graph_.values_[static_cast<size_t>(from)].uses;
  for (const Use& use : uses) {
    if (use.node == except) continue;
    if (use.index == kCapture) {
      replace_captured(use.node, from, to);
    } else if (use.index == kGraphOutput) {
      if (!graph_.is_output(from)) continue;  // given out twice: done with the first
      for (size_t i = 0; i < graph_.outputs_.size(); ++i)
        if (graph_.outputs_[i] == from) set_output(i, to);
      Value& old = graph_.values_[static_cast<size_t>(from)];
      Value& now = graph_.values_[static_cast<size_t>(to)];
      std::swap(old.name, now.name);
      if (now.type.dtype == DType::Undefined || !now.type.has_shape) now.type = old.type;
      now.doc = old.doc;
    } else {
      set_input(use.node, static_cast<size_t>(use.index), to);
    }
  }
  ++log_.values_replaced;
  dirty_ = true;
}

void GraphEdit::remove_value(ValueId value) {
  Value& v = graph_.values_[static_cast<size_t>(value)];
  if (!v.uses.empty() || v.producer != kNone) throw Error(ErrorKind::Defect, "a value in use was removed", v.name);
  if (v.graph_input) set_graph_input(value, false);
  v = Value{};
}

namespace {

/// The nodes of an acyclic graph in their present order, but each after what it reads: what comes too late moves to just before
/// its first reader, so that values don't wait long.
std::vector<NodeId> by_demand(const Graph& graph) {
  enum : char { New, Open, Done };
  std::vector<char> state(graph.node_capacity(), New);
  std::vector<NodeId> out, stack;
  for (NodeId root : graph.order()) {
    if (state[static_cast<size_t>(root)] != New) continue;
    stack.push_back(root);
    while (!stack.empty()) {
      const NodeId id = stack.back();
      char& now = state[static_cast<size_t>(id)];
      if (now != New) {
        stack.pop_back();
        if (now == Open) out.push_back(id);
        now = Done;
        continue;
      }
      now = Open;
      const Node& n = graph.node(id);
      // Pushed last to first, so that the first input's producer comes first.
      for (const auto* list : {&n.captures, &n.inputs})
        for (auto v = list->rbegin(); v != list->rend(); ++v)
          if (const Node* p = graph.producer(*v); p && state[static_cast<size_t>(p->id)] == New) stack.push_back(p->id);
    }
  }
  return out;
}

}  // namespace

void GraphEdit::restore(const Graph& other) {
  graph_ = *other.clone();
  dirty_ = false;
}

void GraphEdit::finish() {
  if (!dirty_) return;
  dirty_ = false;
  // Kahn's algorithm; among the nodes that are ready, the one that came first stays first.
  std::vector<int> position(graph_.nodes_.size(), 0), waiting(graph_.nodes_.size(), 0);
  for (size_t i = 0; i < graph_.order_.size(); ++i) position[static_cast<size_t>(graph_.order_[i])] = static_cast<int>(i);
  std::vector<std::vector<NodeId>> next(graph_.nodes_.size());
  auto depend = [&](NodeId on, NodeId node) {
    next[static_cast<size_t>(on)].push_back(node);
    ++waiting[static_cast<size_t>(node)];
  };
  for (NodeId id : graph_.order_) {
    const Node& n = graph_.node(id);
    for (const auto* list : {&n.inputs, &n.captures})
      for (ValueId v : *list)
        if (v != kNone && graph_.value(v).producer != kNone) depend(graph_.value(v).producer, id);
  }
  auto later = [&](NodeId a, NodeId b) { return position[static_cast<size_t>(a)] > position[static_cast<size_t>(b)]; };
  std::priority_queue<NodeId, std::vector<NodeId>, decltype(later)> ready(later);
  for (NodeId id : graph_.order_)
    if (waiting[static_cast<size_t>(id)] == 0) ready.push(id);
  std::vector<NodeId> sorted;
  while (!ready.empty()) {
    const NodeId id = ready.top();
    ready.pop();
    sorted.push_back(id);
    for (NodeId n : next[static_cast<size_t>(id)])
      if (--waiting[static_cast<size_t>(n)] == 0) ready.push(n);
  }
  if (sorted.size() != graph_.order_.size()) {
    // Going back from any node that still waits ends in the cycle.
    NodeId at = kNone;
    ValueId by = kNone;
    for (NodeId id : graph_.order_)
      if (waiting[static_cast<size_t>(id)] > 0) at = id;
    for (size_t step = 0; step < graph_.order_.size(); ++step) {
      const Node& n = graph_.node(at);
      const NodeId from = at;
      for (const auto* list : {&n.inputs, &n.captures})
        for (ValueId v : *list)
          if (at == from && v != kNone && graph_.value(v).producer != kNone && waiting[static_cast<size_t>(graph_.value(v).producer)] > 0)
            at = graph_.value(v).producer, by = v;
    }
    throw Error(ErrorKind::Malformed, "the graph has a cycle through the value '" + graph_.value(by).name + "' that this node makes", graph_.label(at));
  }
  graph_.order_ = by_demand(graph_);
}

}  // namespace infopt
