#include "passes/support/body_weights.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace infopt {
namespace {

bool is_convolution(const Node& n) { return n.is("Conv") || n.is("ConvTranspose"); }
bool is_recurrent(const Node& n) { return n.is("LSTM") || n.is("GRU") || n.is("RNN"); }

/// Whether a constant of that rank at that input is what the node multiplies by.
bool multiplies(const Node& n, int input, int64_t rank) {
  if (n.is("MatMul") || n.is("Gemm")) return input == 1 && rank == 2;
  if (is_convolution(n)) return input == 1 && rank >= 3;
  return is_recurrent(n) && (input == 1 || input == 2) && rank == 3;
}

/// Calls f(body, use) for what reads `value` in a node's bodies.
template <class F> void each_use(const Node& node, ValueId value, F f) {
  for (const auto& body : node.bodies())
    for (size_t i = 0; i < body->value_capacity(); ++i) {
      const auto v = static_cast<ValueId>(i);
      if (!body->value_alive(v) || body->value(v).outer != value) continue;
      for (const Use& use : body->value(v).uses) f(*body, v, use);
    }
}

bool is_weight(const Graph& graph, ValueId value, const Use& use, int64_t rank);

bool all_weights(const Node& node, ValueId value, int64_t rank) {
  bool all = true;
  each_use(node, value, [&](const Graph& body, ValueId v, const Use& use) { all = all && is_weight(body, v, use, rank); });
  return all;
}

bool is_weight(const Graph& graph, ValueId value, const Use& use, int64_t rank) {
  if (use.index == kGraphOutput) return false;
  const Node& reader = graph.node(use.node);
  return use.index == kCapture ? all_weights(reader, value, rank) : multiplies(reader, use.index, rank);
}

/// As which layer the first that reads the value in the node's bodies does.
std::optional<Layer> layer_in(const Node& node, ValueId value, const Shape& stored) {
  std::optional<Layer> found;
  each_use(node, value, [&](const Graph& body, ValueId v, const Use& use) {
    if (found) return;
    const Node& reader = body.node(use.node);
    if (use.index == kCapture) {
      found = layer_in(reader, v, stored);
    } else if (is_recurrent(reader)) {
      found = recurrent_layer(kNone, kNone, stored);
    } else if (is_convolution(reader)) {
      Layer l{.convolution = true, .transposed = reader.is("ConvTranspose")};
      l.groups = l.transposed ? std::max<int64_t>(1, reader.i("group", 1)) : 1;
      if (stored[0] % l.groups != 0) return;
      l.out = l.transposed ? stored[1] * l.groups : stored[0];
      l.in = l.transposed ? stored[0] / l.groups : stored[1];
      for (size_t i = 2; i < stored.size(); ++i) l.taps *= stored[i];
      found = l;
    } else {
      const bool rows = reader.is("Gemm") && reader.i("transB", 0) != 0;
      found = Layer{.out_axis = rows ? 0 : 1, .out = stored[rows ? 0 : 1], .in = stored[rows ? 1 : 0]};
    }
  });
  return found;
}

bool equal(const Tensor& a, const Tensor& b) { return a.dtype() == b.dtype() && a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0; }

int64_t hoist(GraphEdit& edit, int64_t least) {
  int64_t count = 0;
  std::vector<ValueId> hoisted;  // branches often hold the same weights
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order) {
    std::vector<ValueId> captures = edit.graph().node(id).captures;
    const size_t before = captures.size();
    for (const auto& body : edit.graph().node(id).bodies()) {
      GraphEdit inner(*body);
      hoist(inner, least);
      const size_t end = body->value_capacity();
      for (size_t i = 0; i < end; ++i) {
        const auto v = static_cast<ValueId>(i);
        const Tensor* t = body->value_alive(v) ? body->constant(v) : nullptr;
        if (!t || !is_float(t->dtype()) || t->size() < least || body->value(v).uses.empty() || body->value(v).graph_input) continue;
        const auto& uses = body->value(v).uses;
        if (!std::all_of(uses.begin(), uses.end(), [&](const Use& u) { return is_weight(*body, v, u, t->rank()); })) continue;
        const Tensor tensor = *t;
        const auto same = std::find_if(hoisted.begin(), hoisted.end(), [&](ValueId h) { return equal(*edit.graph().constant(h), tensor); });
        captures.push_back(same != hoisted.end() ? *same : hoisted.emplace_back(edit.add_constant(tensor)));
        inner.replace_uses(v, inner.add_outer(captures.back(), {}, Type::tensor(tensor.dtype(), tensor.shape())));
        if (const Node* made = body->producer(v)) inner.remove_node(made->id);
        else inner.remove_value(v);
        ++count;
      }
    }
    if (captures.size() == before) continue;
    std::sort(captures.begin(), captures.end());
    captures.erase(std::unique(captures.begin(), captures.end()), captures.end());
    edit.set_captures(id, captures);
  }
  return count;
}

}  // namespace

bool bodies_multiply_by(const Graph& graph, const Node& node, ValueId value) {
  const Tensor* t = graph.constant(value);
  return t && all_weights(node, value, t->rank());
}

int64_t hoist_body_weights(GraphEdit& edit, int64_t least) { return hoist(edit, least); }

Layer recurrent_layer(NodeId reader, ValueId weights, const Shape& stored) {
  return {.node = reader, .weights = weights, .out_axis = 1, .out = stored[0] * stored[1], .in = stored[2], .groups = stored[0], .convolution = true};
}

std::vector<Layer> find_body_weights(const Graph& graph, int64_t least) {
  std::vector<Layer> found;
  std::vector<bool> met(graph.value_capacity(), false);
  for (NodeId id : graph.order())
    for (ValueId c : graph.node(id).captures) {
      const Tensor* t = graph.constant(c);
      if (!t || met[static_cast<size_t>(c)] || !is_float(t->dtype()) || t->size() < least) continue;
      met[static_cast<size_t>(c)] = true;
      const auto& uses = graph.value(c).uses;
      const bool alone = std::all_of(uses.begin(), uses.end(), [&](const Use& u) { return u.index == kCapture && bodies_multiply_by(graph, graph.node(u.node), c); });
      std::optional<Layer> layer = alone ? layer_in(graph.node(id), c, t->shape()) : std::nullopt;
      if (!layer) continue;
      layer->node = id;
      layer->weights = c;
      found.push_back(*layer);
    }
  return found;
}

}  // namespace infopt
