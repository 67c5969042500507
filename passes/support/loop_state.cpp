#include "passes/support/loop_state.h"

#include <algorithm>

namespace infopt {
namespace {

/// Where a node and its body have the states: ONNX's Loop (M, cond, v…) → body (i, cond, v…) → (cond, v…, scans…); Scan has them first everywhere.
struct States {
  size_t count = 0, node_input = 0, body_input = 0, body_output = 0;
};

States states_of(const Graph& graph, const Node& n, const Graph& body) {
  if (n.is("Loop")) {
    if (n.inputs.size() < 2 || body.inputs().size() != n.inputs.size() || body.outputs().size() + 1 < n.inputs.size()) return {};
    return {n.inputs.size() - 2, 2, 2, 1};
  }
  const int64_t scanned = n.i("num_scan_inputs", 0);
  if (!n.is("Scan") || graph.opset() < 9 || scanned < 1 || body.inputs().size() != n.inputs.size() || static_cast<size_t>(scanned) > n.inputs.size()) return {};
  const size_t count = n.inputs.size() - static_cast<size_t>(scanned);
  return body.outputs().size() < count ? States{} : States{count, 0, 0, 0};
}

/// What a value is a copy of, through Identities.
ValueId origin(const Graph& graph, ValueId v) {
  for (const Node* p = graph.producer(v); p && p->is("Identity") && p->input(0) != kNone; p = graph.producer(v)) v = p->inputs[0];
  return v;
}

void hoist(GraphEdit& edit, NodeId id, Graph& body, const States& s, size_t k) {
  const ValueId initial = edit.graph().node(id).input(s.node_input + k), state = body.inputs()[s.body_input + k];
  {
    GraphEdit inner(body);
    inner.remove_output(s.body_output + k);
    inner.replace_uses(state, inner.add_outer(initial, {}, edit.graph().value(initial).type));
    inner.remove_input(state);
    inner.remove_value(state);
  }
  std::vector<ValueId> captures = edit.graph().node(id).captures;
  if (std::find(captures.begin(), captures.end(), initial) == captures.end()) captures.push_back(initial);
  std::sort(captures.begin(), captures.end());
  std::vector<ValueId> inputs = edit.graph().node(id).inputs;
  inputs.erase(inputs.begin() + static_cast<std::ptrdiff_t>(s.node_input + k));
  edit.set_inputs(id, std::move(inputs));
  edit.set_captures(id, std::move(captures));
  const std::vector<ValueId>& outputs = edit.graph().node(id).outputs;
  const ValueId last = k < outputs.size() ? outputs[k] : kNone;
  if (last != kNone && !edit.graph().value(last).uses.empty()) {
    const ValueId to = edit.replaceable(last, initial) ? initial : edit.add({"Identity"}, {initial});
    edit.replace_uses(last, to);
  }
  edit.erase_output(id, k);
}

}  // namespace

void hoist_constant_state(GraphEdit& edit) {
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order) {
    const Node& n = edit.graph().node(id);
    const auto* attribute = n.get<std::shared_ptr<Graph>>("body");
    if (!attribute || (!n.is("Loop") && !n.is("Scan"))) continue;
    Graph& body = **attribute;
    const States s = states_of(edit.graph(), n, body);
    // All outputs of the node gone would make it no node: one state stays.
    for (size_t k = s.count; k-- > 0;) {
      const Node& now = edit.graph().node(id);
      if (now.outputs.size() < 2 || now.input(s.node_input + k) == kNone) continue;
      if (origin(body, body.outputs()[s.body_output + k]) == body.inputs()[s.body_input + k]) hoist(edit, id, body, s, k);
    }
  }
}

}  // namespace infopt
