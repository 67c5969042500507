// fuse_batchnorm
//
// before     Conv, ConvTranspose or Gemm → BatchNormalization, or → Mul, Div, Add, Sub with a constant per channel;
//            BatchNormalization → Conv without pads
// after      the Conv, ConvTranspose or Gemm alone, with other weights and bias
// conditions Weights, bias and the normalization's parameters are constant; nobody else reads the weights (two copies would be larger) or
//            what lies between; normalization in inference. Before a padded Conv only where the shift is 0: the pads are zeros behind it.
// formula    s = γ/√(σ² + ε);  W′ = W·s per output channel, b′ = (b − μ)·s + β;  before a Conv: W′ = W·s per input channel,
//            b′ = b + Σ W·(β − μ·s). In double, rounded once.
#include <algorithm>

#include "passes/pass.h"
#include "passes/support/affine.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

/// The operators after the node, one by one, as long as they are affine per channel.
void absorb_following(GraphEdit& edit, NodeId id) {
  const Graph& graph = edit.graph();
  while (true) {
    const Node& n = graph.node(id);
    const int64_t channels = absorbing_channels(graph, n);
    const ValueId y = output_of(n);
    const Node* next = channels ? only_reader(graph, y) : nullptr;
    if (!next || output_of(*next) == kNone) return;
    const auto affine = affine_of(graph, *next, y, output_rank(graph, n), channels);
    if (!affine) return;
    const std::string label = graph.label(next->id);
    if (!scale_outputs(edit, id, *affine)) return;
    edit.note("'" + label + "' into '" + graph.label(id) + "'");
    replace_and_remove(edit, next->outputs[0], y);
  }
}

bool padded(const Node& conv) {
  const std::string how = conv.s("auto_pad", "NOTSET");
  if (how == "VALID") return false;
  const std::vector<int64_t> pads = conv.ints("pads");
  return how != "NOTSET" || std::any_of(pads.begin(), pads.end(), [](int64_t p) { return p != 0; });
}

void absorb_preceding(GraphEdit& edit, NodeId id) {
  const Graph& graph = edit.graph();
  const Node& n = graph.node(id);
  if (!n.is("Conv") || !absorbing_channels(graph, n)) return;
  const Node* before = made_only_for(graph, n.input(0), "BatchNormalization");
  const auto affine = before ? batch_normalization(graph, *before) : std::nullopt;
  if (!affine) return;
  const bool shifts = std::any_of(affine->shift.begin(), affine->shift.end(), [](double s) { return s != 0; });
  if (shifts && padded(n)) return;
  const ValueId x = before->input(0), y = n.input(0);
  const std::string label = graph.label(before->id);
  if (!scale_inputs(edit, id, *affine)) return;
  edit.note("'" + label + "' into '" + graph.label(id) + "', which follows it");
  edit.set_input(id, 0, x);
  remove_unused(edit, y);
}

void fuse(GraphEdit& edit) {
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order)
    if (edit.graph().alive(id)) absorb_following(edit, id);
  for (NodeId id : order)
    if (edit.graph().alive(id)) absorb_preceding(edit, id);
}

void run(GraphEdit& edit, PassContext&, const Options&) { each_graph(edit, fuse); }

}  // namespace

PassDef pass_fuse_batchnorm() {
  return {"fuse_batchnorm", "puts batch normalizations and scales per channel into the weights beside them", Contract::Rounding, {}, false, 0, run};
}

}  // namespace infopt
