// fuse_linear_bias
//
// before     Conv, ConvTranspose or Gemm → Add with a constant per output channel;  MatMul(x, W) → Add(b), x of two axes
// after      the operator with that bias;  Gemm(x, W, b)
// conditions Weights and bias are constant, nobody else reads the product. MatMul of more than two axes stays: its Add is fused by engines.
// formula    b′ = b + c
#include "passes/pass.h"
#include "passes/support/affine.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

void absorb_add(GraphEdit& edit, NodeId id) {
  const Graph& graph = edit.graph();
  while (true) {
    const Node& n = graph.node(id);
    const int64_t channels = absorbing_channels(graph, n);
    const ValueId y = output_of(n);
    const Node* next = channels ? only_reader(graph, y) : nullptr;
    if (!next || !next->is("Add") || output_of(*next) == kNone) return;
    const auto affine = affine_of(graph, *next, y, output_rank(graph, n), channels);
    if (!affine || !scale_outputs(edit, id, *affine)) return;
    replace_and_remove(edit, next->outputs[0], y);
  }
}

void make_gemm(GraphEdit& edit, NodeId id) {
  const Graph& graph = edit.graph();
  const Node& n = graph.node(id);
  const Tensor* w = n.is("MatMul") ? graph.constant(n.input(1)) : nullptr;
  if (!w || w->rank() != 2 || rank_of(graph, n.input(0)) != 2 || !is_float(w->dtype())) return;
  const ValueId y = output_of(n);
  const Node* add = only_reader(graph, y);
  if (!add || !add->is("Add") || output_of(*add) == kNone) return;
  ValueId c = add->input(add->input(0) == y ? 1 : 0);
  const Tensor* bias = graph.constant(c);
  const auto values = bias && bias->dtype() == w->dtype() ? per_channel(*bias, 2, 1, w->dim(1)) : std::nullopt;
  if (!values) return;
  if (bias->shape() != Shape{w->dim(1)}) c = edit.add_constant(rounded(*values, {w->dim(1)}, w->dtype()));
  edit.set_op(id, "Gemm");
  edit.set_input(id, 2, c);
  replace_and_remove(edit, add->outputs[0], y);
}

void fuse(GraphEdit& edit) {
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order) {
    if (edit.graph().alive(id)) make_gemm(edit, id);
    if (edit.graph().alive(id)) absorb_add(edit, id);
  }
}

void run(GraphEdit& edit, PassContext&, const Options&) { each_graph(edit, fuse); }

}  // namespace

PassDef pass_fuse_linear_bias() {
  return {"fuse_linear_bias", "makes constants added to convolutions and products their biases", Contract::Rounding, {}, false, 0, run};
}

}  // namespace infopt
