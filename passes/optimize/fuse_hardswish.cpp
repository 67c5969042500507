// fuse_hardswish
//
// before     h = Clip(x + 3, 0, 6)/6 (or ·1/6; the Clip may be Min and Max);  x·h, x·HardSigmoid(x, 1/6, 1/2), (x·Clip(x + 3, 0, 6))/6
// after      h = HardSigmoid(x, 1/6, 1/2);  HardSwish(x)
// conditions Nobody else reads what lies between. The constants are floats and don't widen x's shape.
// formula    HardSwish(x) = x·max(0, min(1, x/6 + 1/2))   (ONNX operator HardSwish, opset 14)
#include "passes/pass.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

constexpr double kSixth = 1.0 / 6.0;

bool floating(const Graph& graph, ValueId constant) { return is_float(graph.constant(constant)->dtype()); }

/// The other operand where one is a constant, everywhere `wanted`, that doesn't change the other's shape; kNone where none is.
ValueId operand_beside(const Graph& graph, const Node& n, double wanted, bool either_side = true) {
  for (size_t side : {size_t{1}, size_t{0}}) {
    if (side == 0 && !either_side) break;
    const ValueId c = n.input(side), x = n.input(1 - side);
    if (c == kNone || x == kNone) continue;
    const auto v = splat(graph, c);
    if (v && near_to(*v, wanted) && floating(graph, c) && keeps_shape(graph, x, graph.constant(c)->shape())) return x;
  }
  return kNone;
}

/// v where `value` is v/6 or v·(1/6) and nothing else reads it; kNone else.
ValueId sixth_of(const Graph& graph, ValueId value) {
  if (const Node* div = made_by(graph, value, "Div")) return operand_beside(graph, *div, 6, false);
  if (const Node* mul = made_by(graph, value, "Mul")) return operand_beside(graph, *mul, kSixth);
  return kNone;
}

/// v where `value` is v clipped to [0, 6] and made for one reader only; kNone else.
ValueId clipped_to_six(const Graph& graph, ValueId value) {
  const Node* n = graph.producer(value);
  if (!n || !graph.sole_consumer(value)) return kNone;
  if (n->is("Clip")) {
    auto bound = [&](size_t input, const char* attribute) {
      if (const float* f = n->get<float>(attribute)) return std::optional(static_cast<double>(*f));
      return n->input(input) == kNone ? std::nullopt : scalar(graph, n->input(input));
    };
    return bound(1, "min") == 0.0 && bound(2, "max") == 6.0 ? n->input(0) : kNone;
  }
  const char* inner = n->is("Min") ? "Max" : n->is("Max") ? "Min" : nullptr;
  if (!inner || n->inputs.size() != 2) return kNone;
  const ValueId v = operand_beside(graph, *n, n->is("Min") ? 6 : 0);
  const Node* other = v == kNone ? nullptr : made_only_for(graph, v, inner);
  return other && other->inputs.size() == 2 ? operand_beside(graph, *other, n->is("Min") ? 0 : 6) : kNone;
}

/// x where `value` is Clip(x + 3, 0, 6), read once; kNone else.
ValueId shifted_and_clipped(const Graph& graph, ValueId value) {
  const ValueId v = clipped_to_six(graph, value);
  const Node* add = v == kNone ? nullptr : made_only_for(graph, v, "Add");
  return add ? operand_beside(graph, *add, 3) : kNone;
}

/// x where `value` is HardSigmoid(x, 1/6, 1/2), in one piece or several; kNone else.
ValueId gate_of(const Graph& graph, ValueId value) {
  if (const Node* n = made_by(graph, value, "HardSigmoid"))
    return near_to(static_cast<double>(n->f("alpha", 0.2f)), kSixth) && near_to(static_cast<double>(n->f("beta", 0.5f)), 0.5) ? n->input(0) : kNone;
  const ValueId clip = sixth_of(graph, value);
  return clip == kNone ? kNone : shifted_and_clipped(graph, clip);
}

/// x where the node is a product of x and its gate.
ValueId swish_of(const Graph& graph, const Node& n) {
  if (n.is("Mul") && n.inputs.size() == 2)
    for (size_t side : {size_t{0}, size_t{1}}) {
      const ValueId x = n.input(1 - side);
      if (only_reader(graph, n.input(side)) && gate_of(graph, n.input(side)) == x) return x;
    }
  if (output_of(n) == kNone) return kNone;
  const ValueId product = sixth_of(graph, n.outputs[0]);  // (x·Clip(x + 3, 0, 6))/6
  const Node* mul = product == kNone ? nullptr : made_only_for(graph, product, "Mul");
  if (!mul) return kNone;
  for (size_t side : {size_t{0}, size_t{1}})
    if (const ValueId x = mul->input(1 - side); shifted_and_clipped(graph, mul->input(side)) == x) return x;
  return kNone;
}

void replace(GraphEdit& edit, const Node& n, GraphEdit::NewNode spec, ValueId x) {
  const ValueId y = n.outputs[0];
  spec.name = n.name;
  const ValueId made = edit.add(std::move(spec), {x}, n.id);
  edit.set_type(made, edit.graph().value(y).type);
  replace_and_remove(edit, y, made);
}

void fuse(GraphEdit& edit) {
  const Graph& graph = edit.graph();
  const std::vector<NodeId> order = graph.order();
  for (NodeId id : order) {
    if (!graph.alive(id) || !graph.node(id).domain.empty()) continue;
    const ValueId x = output_of(graph.node(id)) == kNone ? kNone : swish_of(graph, graph.node(id));
    if (x == kNone) continue;
    edit.note("'" + graph.label(id) + "' is a HardSwish");
    replace(edit, graph.node(id), {"HardSwish"}, x);
  }
  for (NodeId id : order) {
    if (!graph.alive(id) || graph.node(id).is("HardSigmoid") || output_of(graph.node(id)) == kNone) continue;
    const ValueId x = gate_of(graph, graph.node(id).outputs[0]);
    if (x == kNone) continue;
    edit.note("'" + graph.label(id) + "' is a HardSigmoid");
    replace(edit, graph.node(id), {.op = "HardSigmoid", .attributes = {{"alpha", static_cast<float>(kSixth), {}}, {"beta", 0.5f, {}}}}, x);
  }
}

void run(GraphEdit& edit, PassContext&, const Options&) { each_graph(edit, fuse); }

}  // namespace

PassDef pass_fuse_hardswish() {
  return {"fuse_hardswish", "recognizes HardSwish and HardSigmoid in their pieces", Contract::Rounding, {}, false, 14, run};
}

}  // namespace infopt
