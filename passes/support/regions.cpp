#include "passes/support/regions.h"

#include <algorithm>

#include "passes/support/min_cut.h"

namespace infopt {
namespace {

constexpr double kNever = 1e15;
constexpr double kMargin = 1.1;  ///< an integer kernel has to gain by this factor

class Chooser {
 public:
  Chooser(const Graph& graph, const std::vector<Observed>& seen, const CostModel& costs) : graph_(graph), seen_(seen), costs_(costs), absorbed_(graph.node_capacity()), number_(graph.node_capacity(), kNobody) {}

  Regions choose(const std::vector<bool>& keep_float, const std::vector<bool>& keep_integer);

 private:
  static constexpr size_t kNobody = static_cast<size_t>(-1);
  void add_node(const Node& node, bool never_integer, bool always_integer);
  void add_value(ValueId value);
  void add_output(ValueId value);
  void add_pool(const Node& pool);
  bool float_tensor(ValueId v) const { return v != kNone && seen_[static_cast<size_t>(v)].dtype == DType::F32; }
  /// The node whose label a value has: its producer, or the producer's own where that is absorbed.
  const Node* owner(ValueId value) const {
    const Node* p = graph_.producer(value);
    return p && absorbed_[static_cast<size_t>(p->id)] ? graph_.producer(p->input(0)) : p;
  }

  const Graph& graph_;
  const std::vector<Observed>& seen_;
  const CostModel& costs_;
  MinCut cut_;
  std::vector<bool> absorbed_;
  std::vector<size_t> number_;
  std::vector<NodeCost> cost_;
  std::vector<NodeId> node_;
};

void Chooser::add_node(const Node& n, bool never_integer, bool always_integer) {
  NodeCost cost = costs_.node(n);
  const Node* activation = absorbed_activation(graph_, n);
  if (activation && absorbed_[static_cast<size_t>(activation->id)] && !n.is("Conv"))
    cost.in_float += 0.1 * static_cast<double>(element_count(seen_[static_cast<size_t>(n.outputs[0])].shape));
  if (data_inputs(graph_, n, seen_).empty() || n.outputs.empty() || !float_tensor(n.outputs[0]) || !n.captures.empty()) cost.in_integer.reset();
  if (never_integer) cost.in_integer.reset();
  if (cost.dynamic && *cost.dynamic * kMargin < cost.in_float) cost.in_float = *cost.dynamic;  // what it will be where it isn't static
  if (always_integer && cost.in_integer) cost.in_float += kNever;
  const size_t label = cut_.add();
  number_[static_cast<size_t>(n.id)] = label;
  node_.push_back(n.id);
  cost_.push_back(cost);
  cut_.label_cost(label, cost.in_float, cost.in_integer ? *cost.in_integer * (costs_.weighs() ? kMargin : 1.0) : kNever);
}

void Chooser::add_value(ValueId value) {
  const Node* producer = owner(value);
  std::vector<size_t> readers;
  for (const Use& u : graph_.value(value).uses) {
    if (u.index < 0 || number_[static_cast<size_t>(u.node)] == kNobody) continue;
    const auto inputs = data_inputs(graph_, graph_.node(u.node), seen_);
    if (std::find(inputs.begin(), inputs.end(), value) != inputs.end()) readers.push_back(number_[static_cast<size_t>(u.node)]);
    else if (producer) cut_.conflict_cost(number_[static_cast<size_t>(u.node)], number_[static_cast<size_t>(producer->id)], costs_.dequantize(value));
  }
  if (readers.empty()) return;
  // One QuantizeLinear, however many integer readers; one DequantizeLinear, however many float ones.
  const size_t quantized = cut_.add();
  node_.push_back(kNone);
  cost_.emplace_back();
  for (size_t r : readers) cut_.conflict_cost(quantized, r, kNever);
  if (!producer) {
    cut_.label_cost(quantized, 0, costs_.quantize(value));
    return;
  }
  const size_t made = number_[static_cast<size_t>(producer->id)];
  cut_.conflict_cost(made, quantized, costs_.quantize(value));
  const size_t dequantized = cut_.add();
  node_.push_back(kNone);
  cost_.emplace_back();
  cut_.conflict_cost(dequantized, made, costs_.dequantize(value));
  for (size_t r : readers) cut_.conflict_cost(r, dequantized, kNever);
}

void Chooser::add_output(ValueId value) {
  const Node* p = owner(value);
  if (p && float_tensor(value) && number_[static_cast<size_t>(p->id)] != kNobody && !p->is("Gemm") && !p->is("MatMul"))
    cut_.label_cost(number_[static_cast<size_t>(p->id)], 0, costs_.dequantize(value));
}

/// Codes come channels last out of an integer convolution, and stay so through integer operators; a pool of codes in any other order is slow.
void Chooser::add_pool(const Node& pool) {
  const size_t label = number_[static_cast<size_t>(pool.id)];
  std::vector<size_t> before;
  const Node* n = owner(pool.input(0));
  while (n && (n->is("MaxPool") || n->is("LeakyRelu") || n->is("Sigmoid") || n->is("Add") || n->is("Mul") || n->is("Concat"))) {
    before.push_back(number_[static_cast<size_t>(n->id)]);
    const auto inputs = data_inputs(graph_, *n, seen_);
    n = inputs.empty() ? nullptr : owner(inputs[0]);
  }
  if (!n || !n->is("Conv")) {
    cut_.label_cost(label, 0, costs_.plain_pool(pool));
    return;
  }
  before.push_back(number_[static_cast<size_t>(n->id)]);
  const size_t last = cut_.add();  // whether they come channels last: where all of these are integer
  node_.push_back(kNone);
  cost_.emplace_back();
  for (size_t b : before) cut_.conflict_cost(b, last, kNever);
  cut_.conflict_cost(last, label, costs_.plain_pool(pool));
}

Regions Chooser::choose(const std::vector<bool>& keep_float, const std::vector<bool>& keep_integer) {
  for (NodeId id : graph_.order()) {
    const Node& n = graph_.node(id);
    if (!layer_of(graph_, id) && !n.is("Add") && !n.is("Concat")) continue;
    if (const Node* a = absorbed_activation(graph_, n)) absorbed_[static_cast<size_t>(a->id)] = true;
  }
  for (NodeId id : graph_.order())
    if (!absorbed_[static_cast<size_t>(id)]) add_node(graph_.node(id), keep_float[static_cast<size_t>(id)], keep_integer[static_cast<size_t>(id)]);
  for (size_t v = 0; v < graph_.value_capacity(); ++v)
    if (graph_.value_alive(static_cast<ValueId>(v)) && !graph_.value(static_cast<ValueId>(v)).constant.defined() && float_tensor(static_cast<ValueId>(v))) add_value(static_cast<ValueId>(v));
  for (ValueId id : graph_.outputs()) add_output(id);
  for (NodeId id : graph_.order())
    if (graph_.node(id).is("MaxPool") && graph_.node(id).outputs.size() == 1) add_pool(graph_.node(id));
  const std::vector<bool> labels = cut_.solve();
  Regions out;
  out.integer.assign(graph_.node_capacity(), false);
  for (size_t i = 0; i < node_.size(); ++i) {
    if (node_[i] == kNone) continue;
    out.integer[static_cast<size_t>(node_[i])] = labels[i];
    out.float_ns += cost_[i].in_float;
    out.mixed_ns += labels[i] ? cost_[i].in_integer.value_or(0) : cost_[i].in_float;
  }
  return out;
}

}  // namespace

std::vector<ValueId> data_inputs(const Graph& graph, const Node& node, const std::vector<Observed>& seen) {
  std::vector<ValueId> out;
  const bool first_only = only_moves(node) || node.is("Resize") || layer_of(graph, node.id).has_value();
  for (size_t i = 0; i < node.inputs.size() && (i == 0 || !first_only); ++i) {
    const ValueId v = node.inputs[i];
    if (v == kNone || graph.constant(v) || seen[static_cast<size_t>(v)].dtype != DType::F32) continue;
    if (std::find(out.begin(), out.end(), v) == out.end()) out.push_back(v);
  }
  return out;
}

Regions choose_regions(const Graph& graph, const std::vector<Observed>& seen, const CostModel& costs, const std::vector<bool>& keep_float, const std::vector<bool>& keep_integer) {
  return Chooser(graph, seen, costs).choose(keep_float, keep_integer);
}

}  // namespace infopt
