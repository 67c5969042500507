// share_nodes
//
// before     y1 = f(x; a), y2 = f(x; a): the same operator with the same inputs and attributes
// after      all uses of y2 read y1
// conditions Standard operators without bodies that give the same in each run; each output of the second that is read, the first has too. Where both
//            are the model's outputs, both stay. QuantizeLinear and DequantizeLinear stay: engines look for one beside each reader.
//            In bodies too, each among its own.
// formula    –
#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "lib/base/hash.h"
#include "passes/pass.h"
#include "passes/support/patterns.h"
#include "passes/support/random_ops.h"

namespace infopt {
namespace {

bool same(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.shape() != b.shape() || a.dtype() == DType::String) return false;
  return a.bytes() == 0 || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

/// Bit by bit; what can't be looked into equals nothing.
struct SameData {
  bool operator()(int64_t a, int64_t b) const { return a == b; }
  bool operator()(float a, float b) const { return std::memcmp(&a, &b, sizeof a) == 0; }
  bool operator()(const std::string& a, const std::string& b) const { return a == b; }
  bool operator()(const Tensor& a, const Tensor& b) const { return same(a, b); }
  template <class T> bool operator()(const std::vector<T>& a, const std::vector<T>& b) const { return std::equal(a.begin(), a.end(), b.begin(), b.end(), *this); }
  template <class A, class B> bool operator()(const A&, const B&) const { return false; }
};

bool same_attributes(const Node& a, const Node& b) {
  return a.attributes.size() == b.attributes.size() && std::all_of(a.attributes.begin(), a.attributes.end(), [&](const Attribute& x) {
           const Attribute* y = b.find(x.name);
           return y && x.reference.empty() && y->reference.empty() && std::visit(SameData{}, x.data, y->data);
         });
}

bool may_be_shared(const Graph& graph, const Node& n) {
  if (!n.domain.empty() || n.outputs.empty() || n.inputs.empty() || !n.captures.empty() || !n.bodies().empty()) return false;
  return !n.is("QuantizeLinear") && !n.is("DequantizeLinear") && !is_random(n, graph.opset(n.domain));
}

/// Whether all that is read of `n` can be read of `first` instead.
bool covers(const GraphEdit& edit, const Node& first, const Node& n) {
  for (size_t i = 0; i < n.outputs.size(); ++i) {
    if (n.outputs[i] == kNone || edit.graph().value(n.outputs[i]).uses.empty()) continue;
    if (i >= first.outputs.size() || first.outputs[i] == kNone || !edit.replaceable(n.outputs[i], first.outputs[i])) return false;
  }
  return true;
}

std::string key_of(const Node& n) {
  Hasher h;
  h.text(n.op).text(n.overload).number(static_cast<int64_t>(n.attributes.size()));
  for (ValueId v : n.inputs) h.number(v);
  return h.hex();
}

void share(GraphEdit& edit) {
  edit.finish();
  std::unordered_map<std::string, std::vector<NodeId>> known;
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order) {
    const Node& n = edit.graph().node(id);
    if (!may_be_shared(edit.graph(), n)) continue;
    std::vector<NodeId>& alike = known[key_of(n)];
    const auto first = std::find_if(alike.begin(), alike.end(), [&](NodeId other) {
      const Node& o = edit.graph().node(other);
      return o.op == n.op && o.overload == n.overload && o.inputs == n.inputs && same_attributes(o, n) && covers(edit, o, n);
    });
    if (first == alike.end()) {
      alike.push_back(id);
      continue;
    }
    const std::vector<ValueId> outputs = n.outputs;
    for (size_t i = 0; i < outputs.size(); ++i)
      if (outputs[i] != kNone && !edit.graph().value(outputs[i]).uses.empty()) edit.replace_uses(outputs[i], edit.graph().node(*first).outputs[i]);
    edit.remove_node(id);
  }
}

void run(GraphEdit& edit, PassContext&, const Options&) { each_graph(edit, share); }

}  // namespace

PassDef pass_share_nodes() {
  return {"share_nodes", "makes nodes that compute the same one", Contract::Exact, {}, false, 0, run};
}

}  // namespace infopt
