#include "passes/support/layer_bias.h"

#include "passes/support/patterns.h"

namespace infopt {

LayerBias find_bias(const Graph& graph, const Layer& layer) {
  const Node& n = graph.node(layer.node);
  LayerBias b{n.outputs[0], kNone, 2, std::vector<double>(static_cast<size_t>(layer.out), 0)};
  if (n.is("MatMul")) {
    const Node* add = graph.sole_consumer(n.outputs[0]);
    if (!add || !add->is("Add")) return b;
    const size_t other = add->input(0) == n.outputs[0] ? 1 : 0;
    const Tensor* t = graph.constant(add->input(other));
    if (!t || !is_float(t->dtype()) || t->rank() < 1 || t->size() != layer.out || t->dim(-1) != layer.out) return b;
    b = {add->outputs[0], add->id, other, to_vector<double>(*t)};
    return b;
  }
  const ValueId v = n.input(2);
  if (v == kNone) {
    b.node = n.id;
    return b;
  }
  const Tensor* t = graph.constant(v);
  if (t && (t->size() == 1 || (t->size() == layer.out && t->dim(-1) == layer.out))) {
    b.node = n.id;
    const auto values = to_vector<double>(*t);
    const auto beta = static_cast<double>(n.f("beta", 1));
    for (size_t i = 0; i < b.values.size(); ++i) b.values[i] = beta * values[values.size() == 1 ? 0 : i];
  }
  return b;
}

void set_bias(GraphEdit& edit, const LayerBias& bias, ValueId value) {
  edit.set_input(bias.node, bias.input, value);
  if (edit.graph().node(bias.node).find("beta")) edit.remove_attribute(bias.node, "beta");
}

void write_bias(GraphEdit& edit, const Layer& layer, const LayerBias& bias, const std::vector<double>& values) {
  if (bias.node == kNone) return;
  const Graph& graph = edit.graph();
  const ValueId old = graph.node(bias.node).input(bias.input);
  const Shape shape = old == kNone || graph.constant(old)->size() != layer.out ? Shape{layer.out} : graph.constant(old)->shape();
  set_bias(edit, bias, edit.add_constant(rounded(values, shape, graph.constant(layer.weights)->dtype())));
}

void shift_bias(GraphEdit& edit, const Layer& layer, const std::vector<float>& shift) {
  LayerBias bias = find_bias(edit.graph(), layer);
  for (size_t i = 0; i < shift.size() && i < bias.values.size(); ++i) bias.values[i] += static_cast<double>(shift[i]);
  write_bias(edit, layer, bias, bias.values);
}

}  // namespace infopt
