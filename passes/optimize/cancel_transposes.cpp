// cancel_transposes
//
// before     Transpose(p) → Transpose(q);  Transpose(p) → elementwise operators → Transpose(p⁻¹)
// after      Transpose(q∘p), nothing where that is the identity;  the operators on what lay before the Transpose
// conditions A region of elementwise operators (and Concat, Softmax: their axis moves) is taken out of transposed order where that removes more
//            Transposes than its other inputs and outputs then need. Its constants are permuted. Inputs have the permutation's rank.
// formula    f(Tp(x)) = Tp(f(x)) for elementwise f;  Tq(Tp(x)) = Tr(x), r[i] = p[q[i]]
#include <algorithm>
#include <map>
#include <set>

#include "passes/pass.h"
#include "passes/support/patterns.h"
#include "passes/support/transposes.h"

namespace infopt {
namespace {

/// Transposes of transposes become one, or none.
void merge(GraphEdit& edit) {
  const Graph& graph = edit.graph();
  const std::vector<NodeId> order = graph.order();
  for (NodeId id : order) {
    if (!graph.alive(id)) continue;
    const auto outer = permutation_of(graph, graph.node(id));
    if (!outer) continue;
    const Node* before = made_by(graph, graph.node(id).input(0), "Transpose");
    const auto inner = before ? permutation_of(graph, *before) : std::nullopt;
    if (inner && inner->size() == outer->size()) {
      std::vector<int64_t> both;
      for (int64_t axis : *outer) both.push_back((*inner)[static_cast<size_t>(axis)]);
      const ValueId between = graph.node(id).input(0);
      if (is_identity(both)) {
        edit.note("'" + graph.label(before->id) + "' and '" + graph.label(id) + "' cancel");
        replace_and_remove(edit, graph.node(id).outputs[0], before->input(0));
        continue;
      }
      edit.set_input(id, 0, before->input(0));
      edit.set_attribute(id, "perm", both);
      remove_unused(edit, between);
    }
  }
}

/// Operators that can leave the transposed order together, and what that costs.
class Region {
 public:
  Region(const Graph& graph, const std::vector<int64_t>& perm, bool upwards) : graph_(graph), perm_(perm), inverse_(inverse(perm)), upwards_(upwards) {}

  /// Grows from an entering Transpose. False where some operator can't be moved.
  bool grow(const Node& transpose) {
    enter(transpose);
    while (!open_.empty()) {
      const ValueId v = open_.back();
      open_.pop_back();
      for (const Use& use : graph_.value(v).uses)
        if (!follow(v, use)) return false;
    }
    return true;
  }

  bool gains() const { return !nodes_.empty() && entries_.size() + exits_.size() > left_in_.size() + left_out_.size(); }
  size_t removed() const { return entries_.size() + exits_.size() - left_in_.size() - left_out_.size(); }

  void apply(GraphEdit& edit) const;

 private:
  void enter(const Node& transpose) {
    if (entries_.insert(transpose.id).second) inside(transpose.outputs[0]);
  }
  void inside(ValueId v) {
    left_in_.erase(v);
    if (inside_.insert(v).second) open_.push_back(v);
  }

  bool follow(ValueId v, const Use& use) {
    if (use.index >= 0) {
      const Node& n = graph_.node(use.node);
      const auto perm = permutation_of(graph_, n);
      if (perm && *perm == inverse_) {
        exits_.insert(use.node);
        return true;
      }
      if (nodes_.contains(use.node)) return true;
      if (moves_freely(graph_, n, static_cast<int64_t>(perm_.size()))) return add(n);
    }
    left_out_.insert(v);
    return true;
  }

  bool add(const Node& n) {
    if (nodes_.size() >= kLargest) return false;
    nodes_.insert(n.id);
    inside(n.outputs[0]);
    for (ValueId x : n.inputs) {
      if (x == kNone || graph_.constant(x) || inside_.contains(x)) continue;
      const Node* p = graph_.producer(x);
      const auto perm = p ? permutation_of(graph_, *p) : std::nullopt;
      if (perm && *perm == perm_) {
        enter(*p);
      } else if (rank_of(graph_, x) != static_cast<int64_t>(perm_.size())) {
        return false;
      } else if (upwards_ && p && moves_freely(graph_, *p, static_cast<int64_t>(perm_.size()))) {
        if (!nodes_.contains(p->id) && !add(*p)) return false;
      } else {
        left_in_.insert(x);
      }
    }
    return true;
  }

  static constexpr size_t kLargest = 200;
  const Graph& graph_;
  std::vector<int64_t> perm_, inverse_;
  bool upwards_;
  std::vector<ValueId> open_;
  std::set<NodeId> nodes_, entries_, exits_;
  std::set<ValueId> inside_, left_in_, left_out_;
};

void Region::apply(GraphEdit& edit) const {
  std::map<ValueId, ValueId> untransposed;  // what stands for a value in the order before the Transpose
  for (NodeId id : entries_) untransposed[graph_.node(id).outputs[0]] = graph_.node(id).input(0);
  for (ValueId x : left_in_) {
    untransposed[x] = edit.add({.op = "Transpose", .attributes = {{"perm", inverse_, {}}}}, {x});
    edit.set_type(untransposed[x], permuted(graph_.value(x).type, inverse_));
  }
  // What leaves the region keeps its order: those readers get it transposed. Values that the region makes keep their ids.
  for (ValueId v : left_out_) {
    if (graph_.producer(v) && entries_.contains(graph_.producer(v)->id)) continue;  // the Transpose stays for them
    const NodeId t = edit.add_node({.op = "Transpose", .attributes = {{"perm", perm_, {}}}}, {v}, {edit.add_value({}, graph_.value(v).type)});
    const std::vector<Use> uses = graph_.value(v).uses;
    edit.replace_uses_except(v, graph_.node(t).outputs[0], t);
    for (const Use& use : uses)
      if (use.index >= 0 && (nodes_.contains(use.node) || exits_.contains(use.node))) edit.set_input(use.node, static_cast<size_t>(use.index), v);
  }
  for (NodeId id : nodes_) {
    const std::vector<ValueId> inputs = graph_.node(id).inputs;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i] == kNone) continue;
      if (const auto it = untransposed.find(inputs[i]); it != untransposed.end()) edit.set_input(id, i, it->second);
      else if (const Tensor* c = graph_.constant(inputs[i]); c && c->size() != 1) edit.set_input(id, i, edit.add_constant(permuted(*c, inverse_)));
    }
    move_axis(edit, id, perm_);
    const ValueId y = graph_.node(id).outputs[0];
    edit.set_type(y, permuted(graph_.value(y).type, inverse_));
  }
  for (NodeId id : exits_) {
    const ValueId x = graph_.node(id).input(0);
    const auto it = untransposed.find(x);
    replace_and_remove(edit, graph_.node(id).outputs[0], it == untransposed.end() ? x : it->second);
  }
  for (NodeId id : entries_)
    if (graph_.alive(id)) remove_unused(edit, graph_.node(id).outputs[0]);
}

/// Whether a region around this Transpose was moved.
bool push(GraphEdit& edit, NodeId id) {
  const Graph& graph = edit.graph();
  const auto perm = permutation_of(graph, graph.node(id));
  if (!perm || is_identity(*perm)) return false;
  for (bool upwards : {true, false}) {
    Region region(graph, *perm, upwards);
    if (!region.grow(graph.node(id)) || !region.gains()) continue;
    edit.note("'" + graph.label(id) + "' and others around it: " + std::to_string(region.removed()) + " fewer");
    region.apply(edit);
    edit.finish();
    return true;
  }
  return false;
}

void cancel(GraphEdit& edit) {
  merge(edit);
  edit.finish();
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order)
    if (edit.graph().alive(id)) push(edit, id);
  merge(edit);
}

void run(GraphEdit& edit, PassContext&, const Options&) { each_graph(edit, cancel); }

}  // namespace

PassDef pass_cancel_transposes() {
  return {"cancel_transposes", "merges and cancels Transposes, through elementwise operators too", Contract::Rounding, {}, false, 0, run};
}

}  // namespace infopt
