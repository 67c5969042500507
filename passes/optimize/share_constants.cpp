// share_constants
//
// before     W1, W2: initializers with the same type, shape and bits
// after      all uses of W2 read W1
// conditions Neither is a graph's input (its default may be overridden), output, or a string. In bodies too, each among its own.
// formula    –
#include <cstring>
#include <unordered_map>

#include "lib/base/hash.h"
#include "passes/pass.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

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

void run(GraphEdit& edit, PassContext&, const Options&) { each_graph(edit, share); }

}  // namespace

PassDef pass_share_constants() {
  return {"share_constants", "makes identical constants one", Contract::Exact, {}, false, 0, run};
}

}  // namespace infopt
