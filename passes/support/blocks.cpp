#include "passes/support/blocks.h"

#include <algorithm>

namespace infopt {
namespace {

bool only_shapes(const Node& n) { return n.is("Shape") || n.is("Size"); }

class Cutter {
 public:
  Cutter(const Graph& graph, const BlockSearch& search) : graph_(graph), search_(search), active_(graph.value_capacity()), changed_(graph.value_capacity()), last_use_(graph.value_capacity(), -1) {
    for (ValueId v : graph.inputs()) active_[at(v)] = true;
    int64_t place = 0;
    for (NodeId id : graph.order()) {
      const Node& n = graph.node(id);
      bool active = false, changed = search.layers.contains(id);
      for (const auto& list : {n.inputs, n.captures})
        for (ValueId v : list) {
          if (v == kNone) continue;
          active = active || active_[at(v)];
          changed = changed || changed_[at(v)];
          last_use_[at(v)] = place;
        }
      for (ValueId v : n.outputs)
        if (v != kNone) active_[at(v)] = active, changed_[at(v)] = changed && !only_shapes(n);
      ++place;
    }
  }

  std::vector<Block> blocks() const {
    std::vector<Block> out;
    std::vector<NodeId> layers;
    std::vector<ValueId> outputs, pending;  ///< graph outputs since the last cut
    std::set<ValueId> live;
    ValueId begin = kNone, end = kNone;
    const auto close = [&] {
      if (!layers.empty() && (end != kNone || !outputs.empty())) {
        if (end != kNone && std::find(outputs.begin(), outputs.end(), end) == outputs.end()) outputs.push_back(end);
        out.push_back(make(begin, outputs, layers));
      }
      begin = end != kNone ? end : begin;
      end = kNone;
      layers.clear();
      outputs.clear();
    };
    std::vector<NodeId> segment;
    const auto cut = [&](ValueId value) {
      if (layers.size() + segment.size() > search_.most_layers) close();
      layers.insert(layers.end(), segment.begin(), segment.end());
      outputs.insert(outputs.end(), pending.begin(), pending.end());
      end = value;
      segment.clear();
      pending.clear();
    };
    for (int64_t i = 0; i < static_cast<int64_t>(graph_.order().size()); ++i) {
      const Node& n = graph_.node(graph_.order()[static_cast<size_t>(i)]);
      if (search_.layers.contains(n.id)) segment.push_back(n.id);
      for (ValueId v : n.outputs) {
        if (v == kNone || !changed_[at(v)]) continue;
        live.insert(v);
        if (graph_.is_output(v))
          if (const ValueId before = before_squashing(v); before != kNone) pending.push_back(before);
      }
      std::erase_if(live, [&](ValueId v) { return last_use_[at(v)] <= i; });
      if (live.size() == 1 && good_cut(*live.begin())) cut(*live.begin());
    }
    if (!segment.empty() || !pending.empty()) {
      if (!segment.empty() && layers.size() + segment.size() > search_.most_layers) close();
      layers.insert(layers.end(), segment.begin(), segment.end());
      outputs.insert(outputs.end(), pending.begin(), pending.end());
      end = outputs.empty() ? end : kNone;
    }
    close();
    return out;
  }

  std::vector<Block> singles() const {
    std::vector<Block> out;
    for (NodeId id : graph_.order()) {
      if (!search_.layers.contains(id)) continue;
      const Node& n = graph_.node(id);
      ValueId v = n.outputs[0];
      if (const ValueId rounded = behind_rounding(v); rounded != kNone && search_.comparable(rounded)) v = rounded;
      if (search_.comparable(v)) out.push_back(make(n.input(0), {v}, {id}));
    }
    return out;
  }

 private:
  static size_t at(ValueId v) { return static_cast<size_t>(v); }

  /// Not between a value and what rounds it, nor at codes.
  bool good_cut(ValueId v) const {
    const Node* p = graph_.producer(v);
    if (!p || p->is("QuantizeLinear") || !search_.comparable(v)) return false;
    const Node* next = graph_.sole_consumer(v);
    return !next || !next->is("QuantizeLinear");
  }

  /// Where Q and DQ alone follow: what they give out; else kNone.
  ValueId behind_rounding(ValueId v) const {
    const Node* q = graph_.sole_consumer(v);
    const Node* d = q && q->is("QuantizeLinear") ? graph_.sole_consumer(q->outputs[0]) : nullptr;
    return d && d->is("DequantizeLinear") ? d->outputs[0] : kNone;
  }

  /// A comparable value that says what the output says, where gradients don't vanish.
  ValueId before_squashing(ValueId v) const {
    for (ValueId now = v;;) {
      const Node* p = graph_.producer(now);
      if (!p || !squashes(*p) || !changed_[at(p->input(0))]) return search_.comparable(now) ? now : search_.comparable(v) ? v : kNone;
      now = p->input(0);
    }
  }

  /// Walks back from the outputs to `begin`, and to what the layers before don't change.
  Block make(ValueId begin, std::vector<ValueId> outputs, std::vector<NodeId> layers) const {
    Block b{{}, std::move(outputs), std::move(layers)};
    std::set<ValueId> met, inputs;
    std::vector<ValueId> todo = b.outputs;
    while (!todo.empty()) {
      const ValueId v = todo.back();
      todo.pop_back();
      if (v == kNone || !met.insert(v).second || graph_.constant(v) || (!active_[at(v)] && graph_.producer(v))) continue;
      const Node* p = graph_.producer(v);
      if (v == begin || !p || !changed_[at(v)]) inputs.insert(v);
      else todo.insert(todo.end(), p->inputs.begin(), p->inputs.end());
    }
    b.inputs.assign(inputs.begin(), inputs.end());
    return b;
  }

  const Graph& graph_;
  const BlockSearch& search_;
  std::vector<bool> active_;   ///< by value: the model's inputs come into it
  std::vector<bool> changed_;  ///< by value: one of the layers comes into it
  std::vector<int64_t> last_use_;
};

}  // namespace

bool squashes(const Node& n) { return n.is("Softmax") || n.is("LogSoftmax") || n.is("Sigmoid") || n.is("Identity"); }

std::vector<Block> find_blocks(const Graph& graph, const BlockSearch& search) { return Cutter(graph, search).blocks(); }
std::vector<Block> single_layer_blocks(const Graph& graph, const BlockSearch& search) { return Cutter(graph, search).singles(); }

}  // namespace infopt
