// Before: int8 constant → DequantizeLinear → an operator in float, or int8 table → Gather → DequantizeLinear.
// After: … → Cast → Mul(scale), which the target folds when it loads.
// Conditions: the target has the storage form; zero points are 0; no reader of the result computes in integers, that is, has
// an activation behind a DequantizeLinear as its first input.
#include <algorithm>

#include "passes/pass.h"

namespace infopt {
namespace {

bool is_zero(const Graph& graph, ValueId id) {
  if (id == kNone) return true;
  const Tensor* t = graph.constant(id);
  if (!t) return false;
  const auto values = to_vector<int64_t>(*t);
  return std::all_of(values.begin(), values.end(), [](int64_t v) { return v == 0; });
}

/// Int8 codes that are constant, or rows of a constant.
const Tensor* stored_codes(const Graph& graph, ValueId id) {
  if (const Tensor* t = graph.constant(id)) return t;
  const Node* p = graph.producer(id);
  return p && p->is("Gather") ? graph.constant(p->input(0)) : nullptr;
}

bool computes_in_integers(const Graph& graph, const Node& reader) {
  for (ValueId v : reader.inputs) {
    const Node* p = graph.producer(v);
    if (p && p->is("DequantizeLinear") && !stored_codes(graph, p->input(0))) return true;
  }
  return false;
}

bool is_stored(const Graph& graph, const Node& n) {
  const Tensor* codes = n.is("DequantizeLinear") ? stored_codes(graph, n.input(0)) : nullptr;
  if (!codes || codes->dtype() != DType::I8 || !graph.constant(n.input(1)) || !is_zero(graph, n.input(2)) || n.i("block_size", 0) != 0) return false;
  const auto& uses = graph.value(n.outputs[0]).uses;
  return std::none_of(uses.begin(), uses.end(), [&](const Use& u) { return u.index >= 0 && computes_in_integers(graph, graph.node(u.node)); });
}

/// The scale with a dimension for each of the result's from the axis on, so that it multiplies as DequantizeLinear means it.
Tensor broadcast_scale(const Tensor& scale, int64_t axis, int64_t rank) {
  if (scale.rank() == 0 || scale.size() == 1) return scale.reshaped({});
  Shape shape{scale.size()};
  for (int64_t i = axis < 0 ? axis + 1 : axis + 1 - rank; i < 0; ++i) shape.push_back(1);
  return scale.reshaped(shape);
}

void run(GraphEdit& edit, PassContext& context, const Options&) {
  if (!context.profile.storage_form) return;
  const Graph& graph = edit.graph();
  const std::vector<NodeId> order = graph.order();
  for (NodeId id : order) {
    const Node& n = graph.node(id);
    if (!is_stored(graph, n)) continue;
    const Tensor* codes = graph.constant(n.input(0));
    const int64_t axis = n.i("axis", 1);
    const Tensor& scale = *graph.constant(n.input(1));
    if (!codes && axis >= 0 && scale.size() > 1) continue;  // rows of an unknown rank
    const ValueId wide = edit.add({.op = "Cast", .attributes = {{"to", static_cast<int64_t>(scale.dtype()), {}}}}, {n.input(0)}, id);
    const ValueId factor = edit.add_constant(broadcast_scale(scale, axis, codes ? codes->rank() : 0));
    const ValueId y = edit.add({.op = "Mul"}, {wide, factor}, id);
    if (!edit.replaceable(n.outputs[0], y)) continue;
    edit.replace_uses(n.outputs[0], y);
    edit.remove_node(id);
  }
}

}  // namespace

PassDef pass_lower_storage() {
  return {.name = "lower_storage", .summary = "int8 weights of float products in the form that the target decodes when it loads", .contract = Contract::Rounding, .run = run};
}

}  // namespace infopt
