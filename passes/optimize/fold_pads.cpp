// fold_pads
//
// before     Pad (constant, along spatial axes) → Conv, AveragePool or MaxPool
// after      the operator with these pads besides its own
// conditions Pads are constant and not negative, the operator's own are explicit. Conv: of 0. AveragePool: of 0, and its own pads counted (or none);
//            MaxPool: of −inf, or of 0 below values that can't be negative; its indices not read. Pools: rounding down, no dilation, and
//            every window reaches past the pads, or engines refuse it.
// formula    pads′ = pads + Pad's pads
#include <algorithm>
#include <limits>

#include "passes/pass.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

struct Padding {
  double value = 0;
  std::vector<int64_t> spatial;  ///< begins, then ends
};

std::optional<Padding> padding_of(const Graph& graph, const Node& pad, int64_t rank) {
  if (pad.s("mode", "constant") != "constant" || rank < 3) return std::nullopt;
  Padding out;
  std::vector<int64_t> pads, axes;
  if (pad.find("pads")) {
    pads = pad.ints("pads");
    out.value = static_cast<double>(pad.f("value", 0));
  } else {
    const Tensor* t = graph.constant(pad.input(1));
    const auto value = pad.input(2) == kNone ? std::optional(0.0) : scalar(graph, pad.input(2));
    if (!t || !value) return std::nullopt;
    pads = to_vector<int64_t>(*t);
    out.value = *value;
  }
  if (pad.input(3) != kNone) {
    const Tensor* t = graph.constant(pad.input(3));
    if (!t) return std::nullopt;
    axes = to_vector<int64_t>(*t);
  } else {
    for (int64_t a = 0; a < rank; ++a) axes.push_back(a);
  }
  if (pads.size() != axes.size() * 2) return std::nullopt;
  out.spatial.assign(static_cast<size_t>(rank - 2) * 2, 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t axis = axes[i] < 0 ? axes[i] + rank : axes[i], begin = pads[i], end = pads[i + axes.size()];
    if (axis < 0 || axis >= rank || begin < 0 || end < 0) return std::nullopt;
    if (axis < 2 && (begin != 0 || end != 0)) return std::nullopt;
    if (axis < 2) continue;
    out.spatial[static_cast<size_t>(axis - 2)] += begin;
    out.spatial[static_cast<size_t>(axis - 2 + rank - 2)] += end;
  }
  return out;
}

bool never_negative(const Graph& graph, ValueId v) {
  const Node* n = graph.producer(v);
  if (!n) return false;
  if (n->is("Relu") || n->is("Sigmoid") || n->is("HardSigmoid") || n->is("Softmax") || n->is("Abs")) return true;
  if (n->is("MaxPool") || n->is("AveragePool") || n->is("Concat"))
    return std::all_of(n->inputs.begin(), n->inputs.end(), [&](ValueId i) { return never_negative(graph, i); });
  if (!n->is("Clip")) return false;
  const auto low = n->find("min") ? std::optional(static_cast<double>(n->f("min", -1))) : scalar(graph, n->input(1));
  return low && *low >= 0;
}

bool all_are(const std::vector<int64_t>& v, int64_t to) {
  return std::all_of(v.begin(), v.end(), [&](int64_t x) { return x == to; });
}

/// The operator's own pads; empty where they aren't explicit.
std::optional<std::vector<int64_t>> own_pads(const Node& n, size_t spatial) {
  const std::string how = n.s("auto_pad", "NOTSET");
  if (how != "NOTSET" && how != "VALID") return std::nullopt;
  std::vector<int64_t> pads = how == "VALID" ? std::vector<int64_t>{} : n.ints("pads");
  if (pads.empty()) pads.assign(spatial * 2, 0);
  return pads.size() == spatial * 2 ? std::optional(pads) : std::nullopt;
}

/// Whether a pool may take `total` pads where it had `own` ones.
bool pool_takes(const Graph& graph, const Node& pool, const Padding& padding, ValueId x, const std::vector<int64_t>& own, const std::vector<int64_t>& total) {
  const std::vector<int64_t> kernel = pool.ints("kernel_shape");
  if (pool.i("ceil_mode", 0) != 0 || !all_are(pool.ints("dilations"), 1)) return false;
  for (size_t i = 0; i < total.size(); ++i)
    if (total[i] >= kernel[i % kernel.size()]) return false;
  if (pool.is("AveragePool")) return padding.value == 0 && (all_are(own, 0) || pool.i("count_include_pad", 0) != 0);
  if (pool.outputs.size() > 1 && pool.outputs[1] != kNone && !graph.value(pool.outputs[1]).uses.empty()) return false;
  if (padding.value <= static_cast<double>(std::numeric_limits<float>::lowest())) return true;
  return padding.value == 0 && never_negative(graph, x);
}

void fold_into(GraphEdit& edit, NodeId id) {
  const Graph& graph = edit.graph();
  const Node& n = graph.node(id);
  const bool conv = n.is("Conv");
  if (!conv && !n.is("AveragePool") && !n.is("MaxPool")) return;
  const ValueId padded = n.input(0);
  const Node* pad = made_by(graph, padded, "Pad");
  if (!pad) return;
  const auto rank = conv ? rank_of(graph, n.input(1)) : static_cast<int64_t>(n.ints("kernel_shape").size()) + 2;
  const auto padding = padding_of(graph, *pad, rank);
  if (!padding) return;
  const auto own = own_pads(n, static_cast<size_t>(rank - 2));
  if (!own) return;
  std::vector<int64_t> total = *own;
  for (size_t i = 0; i < total.size(); ++i) total[i] += padding->spatial[i];
  const ValueId x = pad->input(0);
  if (conv ? padding->value != 0 : !pool_takes(graph, n, *padding, x, *own, total)) return;
  edit.note("'" + graph.label(pad->id) + "' into '" + graph.label(id) + "'");
  if (n.find("auto_pad")) edit.remove_attribute(id, "auto_pad");
  edit.set_attribute(id, "pads", total);
  if (n.is("AveragePool")) edit.set_attribute(id, "count_include_pad", int64_t{1});
  edit.set_input(id, 0, x);
  remove_unused(edit, padded);
}

void fold(GraphEdit& edit) {
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order)
    if (edit.graph().alive(id)) fold_into(edit, id);
}

void run(GraphEdit& edit, PassContext&, const Options&) { each_graph(edit, fold); }

}  // namespace

PassDef pass_fold_pads() {
  return {"fold_pads", "puts Pad operators into the convolutions and pools behind them", Contract::Rounding, {}, false, 0, run};
}

}  // namespace infopt
