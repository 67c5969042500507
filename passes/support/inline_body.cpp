#include "passes/support/inline_body.h"

#include <algorithm>
#include <unordered_map>

namespace infopt {
namespace {

using Map = std::unordered_map<ValueId, ValueId>;

/// The bodies' outer values, which stood for values of the inlined graph, stand for what these became.
void redirect(const std::vector<Attribute>& attributes, const Map& map) {
  auto one = [&](Graph& graph) {
    GraphEdit edit(graph);
    for (size_t i = 0; i < graph.value_capacity(); ++i) {
      const auto v = static_cast<ValueId>(i);
      if (graph.value_alive(v) && graph.value(v).outer != kNone) edit.set_outer(v, map.at(graph.value(v).outer));
    }
  };
  for (const Attribute& a : attributes) {
    if (const auto* g = std::get_if<std::shared_ptr<Graph>>(&a.data)) one(**g);
    if (const auto* many = std::get_if<std::vector<std::shared_ptr<Graph>>>(&a.data))
      for (const auto& g : *many) one(*g);
  }
}

}  // namespace

void inline_body(GraphEdit& edit, NodeId id, const Graph& body, const std::vector<ValueId>& inputs) {
  Map map;
  for (size_t i = 0; i < inputs.size(); ++i) map[body.inputs()[i]] = inputs[i];
  for (size_t i = 0; i < body.value_capacity(); ++i) {
    const auto v = static_cast<ValueId>(i);
    if (!body.value_alive(v) || map.contains(v)) continue;
    const Value& value = body.value(v);
    if (value.outer != kNone) map[v] = value.outer;
    else if (value.constant.defined()) map[v] = edit.add_constant(value.constant);
    else map[v] = edit.add_value({}, value.type);
  }
  auto mapped = [&](const std::vector<ValueId>& values) {
    std::vector<ValueId> out;
    for (ValueId v : values) out.push_back(v == kNone ? kNone : map.at(v));
    return out;
  };
  for (NodeId n : body.order()) {
    const Node& node = body.node(n);
    redirect(node.attributes, map);
    const NodeId made = edit.add_node({node.op, node.domain, node.name, node.attributes}, mapped(node.inputs), mapped(node.outputs), id);
    std::vector<ValueId> captures = mapped(node.captures);
    std::sort(captures.begin(), captures.end());
    captures.erase(std::unique(captures.begin(), captures.end()), captures.end());
    if (!captures.empty()) edit.set_captures(made, std::move(captures));
  }
  const std::vector<ValueId> outputs = edit.graph().node(id).outputs;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i] == kNone || edit.graph().value(outputs[i]).uses.empty()) continue;
    ValueId to = map.at(body.outputs()[i]);
    if (!edit.replaceable(outputs[i], to)) {
      to = edit.add({"Identity"}, {to}, id);
      edit.set_type(to, edit.graph().value(outputs[i]).type);
    }
    edit.replace_uses(outputs[i], to);
  }
  edit.remove_node(id);
}

}  // namespace infopt
