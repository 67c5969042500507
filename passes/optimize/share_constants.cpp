// share_constants
//
// before     W1, W2: initializers with the same type, shape and bits
// after      all uses of W2 read W1
// conditions Neither is a graph's input (its default may be overridden), output, or a string. In bodies too, each among its own; large ones that several
//            bodies have move to the graph around them.
// formula    –
#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "lib/base/hash.h"
#include "passes/pass.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

constexpr size_t kWorthMoving = 1024;  ///< bytes; smaller constants stay in their bodies

bool same(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.shape() != b.shape()) return false;
  return a.raw() == b.raw() || a.bytes() == 0 || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

/// What equal tensors have in common and few others do; long ones are told apart by their beginning first.
std::string key_of(const Tensor& t) {
  constexpr size_t kPrefix = 1 << 12;
  Hasher h;
  h.number(static_cast<int64_t>(t.dtype()));
  for (int64_t d : t.shape()) h.number(d);
  h.bytes(t.raw(), std::min(t.bytes(), kPrefix));
  return h.hex();
}

void share(GraphEdit& edit) {
  const Graph& graph = edit.graph();
  std::unordered_map<std::string, std::vector<ValueId>> first;
  for (size_t i = 0; i < graph.value_capacity(); ++i) {
    const auto id = static_cast<ValueId>(i);
    if (!graph.value_alive(id)) continue;
    const Value& v = graph.value(id);
    if (!v.is_constant() || v.uses.empty() || v.constant.dtype() == DType::String || graph.is_output(id)) continue;
    std::vector<ValueId>& candidates = first[key_of(v.constant)];
    bool found = false;
    for (ValueId other : candidates) {
      if (!same(graph.value(other).constant, v.constant)) continue;
      if (v.constant.bytes() >= 1024) edit.note("'" + v.name + "' is '" + graph.value(other).name + "'");
      edit.replace_uses(id, other);
      edit.remove_value(id);
      found = true;
      break;
    }
    if (!found) candidates.push_back(id);
  }
}

struct InBody {
  NodeId node = kNone;
  size_t body = 0;
  ValueId value = kNone;
};

/// Large constants of the node's body, none of them its outputs.
void list_constants(const Graph& body, NodeId node, size_t index, std::unordered_map<std::string, std::vector<InBody>>& found, std::vector<std::string>& order) {
  for (size_t i = 0; i < body.value_capacity(); ++i) {
    const auto id = static_cast<ValueId>(i);
    if (!body.value_alive(id)) continue;
    const Value& v = body.value(id);
    if (!v.is_constant() || v.uses.empty() || v.constant.bytes() < kWorthMoving || v.constant.dtype() == DType::String || body.is_output(id)) continue;
    const std::string key = key_of(v.constant);
    if (found[key].empty()) order.push_back(key);
    found[key].push_back({node, index, id});
  }
}

/// The body reads `value`, of the graph around it, instead of its own constant.
void read_from_outside(GraphEdit& edit, const InBody& at, ValueId value) {
  std::vector<ValueId> captures = edit.graph().node(at.node).captures;
  if (std::find(captures.begin(), captures.end(), value) == captures.end()) captures.push_back(value);
  {
    const Tensor tensor = edit.graph().value(value).constant;
    GraphEdit inner(*edit.graph().node(at.node).bodies()[at.body]);
    inner.replace_uses(at.value, inner.add_outer(value, {}, Type::tensor(tensor.dtype(), tensor.shape())));
    inner.remove_value(at.value);
  }
  edit.set_captures(at.node, std::move(captures));
}

/// From the innermost bodies outwards.
void move_out(GraphEdit& edit) {
  std::unordered_map<std::string, std::vector<InBody>> found;
  std::vector<std::string> keys;
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order) {
    const auto bodies = edit.graph().node(id).bodies();
    for (size_t b = 0; b < bodies.size(); ++b) {
      {
        GraphEdit inner(*bodies[b]);
        move_out(inner);
      }
      list_constants(*bodies[b], id, b, found, keys);
    }
  }
  for (const std::string& key : keys) {
    std::vector<InBody>& alike = found[key];
    while (alike.size() > 1) {
      const auto tensor_of = [&](const InBody& at) { return edit.graph().node(at.node).bodies()[at.body]->value(at.value).constant; };
      const Tensor first = tensor_of(alike.front());
      const auto others = std::stable_partition(alike.begin(), alike.end(), [&](const InBody& at) { return same(tensor_of(at), first); });
      if (others - alike.begin() > 1) {
        const ValueId moved = edit.add_constant(first);
        for (auto at = alike.begin(); at != others; ++at) read_from_outside(edit, *at, moved);
      }
      alike.erase(alike.begin(), others);
    }
  }
  edit.finish();
}

void run(GraphEdit& edit, PassContext&, const Options&) {
  move_out(edit);
  each_graph(edit, share);
}

}  // namespace

PassDef pass_share_constants() {
  return {"share_constants", "makes identical constants one", Contract::Exact, {}, false, 0, run};
}

}  // namespace infopt
