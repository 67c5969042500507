// remove_dead
//
// before     x ─ A ─ y (nobody reads it);  W (an initializer that nobody reads)
// after      nothing of A and W
// conditions No output of the node is a graph's output or read, in a body either. Graph inputs stay: they are the model's interface.
//            An operator of an unknown domain goes too: ONNX nodes have no effect but their outputs.
// formula    –
#include <algorithm>
#include <set>
#include <string>

#include "passes/pass.h"

namespace infopt {
namespace {

bool used(const Graph& graph, ValueId v) { return v != kNone && !graph.value(v).uses.empty(); }

/// Drops what a body no longer reads of its parent from the node's captures.
void tidy_captures(GraphEdit& edit, NodeId id) {
  std::set<ValueId> read;
  for (const auto& body : edit.graph().node(id).bodies())
    for (size_t v = 0; v < body->value_capacity(); ++v)
      if (body->value_alive(static_cast<ValueId>(v)) && body->value(static_cast<ValueId>(v)).outer != kNone)
        read.insert(body->value(static_cast<ValueId>(v)).outer);
  std::vector<ValueId> captures(read.begin(), read.end());
  std::vector<ValueId> now = edit.graph().node(id).captures;
  std::sort(now.begin(), now.end());
  if (now != captures) edit.set_captures(id, std::move(captures));
}

void clean(GraphEdit& edit) {
  edit.finish();
  const Graph& graph = edit.graph();
  const std::vector<NodeId> order = graph.order();
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const Node& n = graph.node(*it);
    if (std::none_of(n.outputs.begin(), n.outputs.end(), [&](ValueId o) { return used(graph, o); })) {
      edit.remove_node(*it);
      continue;
    }
    for (const auto& body : n.bodies()) {
      GraphEdit inner(*body);
      clean(inner);
      edit.log().nodes_removed += inner.log().nodes_removed;
    }
    if (!n.bodies().empty()) tidy_captures(edit, *it);
  }
  for (size_t i = 0; i < graph.value_capacity(); ++i) {
    const auto id = static_cast<ValueId>(i);
    if (!graph.value_alive(id)) continue;
    const Value& v = graph.value(id);
    if (v.uses.empty() && v.producer == kNone && !v.graph_input) edit.remove_value(id);
  }
}

void run(GraphEdit& edit, PassContext&, const Options&) { clean(edit); }

}  // namespace

PassDef pass_remove_dead() {
  return {"remove_dead", "removes nodes, constants and values that no output needs", Contract::Exact, {}, false, 0, run};
}

}  // namespace infopt
