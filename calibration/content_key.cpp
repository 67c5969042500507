// content_key of calibration/calibration.h.
#include <map>

#include "calibration/calibration.h"
#include "lib/base/hash.h"

namespace infopt {
namespace {

void add(Hasher& h, const Tensor& t) {
  h.number(static_cast<int64_t>(t.dtype()));
  h.number(t.rank());
  for (int64_t d : t.shape()) h.number(static_cast<int64_t>(d));
  if (t.dtype() == DType::String)
    for (const auto& s : t.strings()) h.text(s);
  else h.bytes(t.raw(), t.bytes());
}

void add(Hasher& h, const Graph& graph);

void add(Hasher& h, const Attribute& a) {
  h.text(a.name);
  h.number(static_cast<int64_t>(a.data.index()));
  auto each = [&](const auto& list, auto one) {
    h.number(static_cast<int64_t>(list.size()));
    for (const auto& item : list) one(item);
  };
  auto bits = [&](float f) { h.bytes(&f, sizeof f); };
  std::visit([&]<class T>(const T& v) {
    if constexpr (std::is_same_v<T, int64_t>) h.number(static_cast<int64_t>(v));
    else if constexpr (std::is_same_v<T, float>) bits(v);
    else if constexpr (std::is_same_v<T, std::string>) h.text(v);
    else if constexpr (std::is_same_v<T, Tensor>) add(h, v);
    else if constexpr (std::is_same_v<T, std::shared_ptr<Graph>>) add(h, *v);
    else if constexpr (std::is_same_v<T, std::vector<int64_t>>) each(v, [&](int64_t i) { h.number(static_cast<int64_t>(i)); });
    else if constexpr (std::is_same_v<T, std::vector<float>>) each(v, bits);
    else if constexpr (std::is_same_v<T, std::vector<std::string>>) each(v, [&](const std::string& s) { h.text(s); });
    else if constexpr (std::is_same_v<T, std::vector<Tensor>>) each(v, [&](const Tensor& t) { add(h, t); });
    else if constexpr (std::is_same_v<T, std::vector<std::shared_ptr<Graph>>>) each(v, [&](const auto& g) { add(h, *g); });
    else h.text(v.serialized);
  }, a.data);
}

/// Values are numbered as they are met, inputs first, so that neither names nor ids matter.
void add(Hasher& h, const Graph& graph) {
  std::map<ValueId, int64_t> number;
  auto refer = [&](ValueId id) {
    if (id == kNone) {
      h.number(0);
      return;
    }
    const auto [it, fresh] = number.emplace(id, static_cast<int64_t>(number.size()) + 1);
    h.number(it->second);
    if (!fresh) return;
    const Value& v = graph.value(id);
    h.number(v.outer == kNone ? 0 : 1);
    if (v.constant.defined()) add(h, v.constant);
  };
  for (ValueId id : graph.inputs()) refer(id);
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    h.text(n.domain);
    h.text(n.op);
    for (ValueId v : n.inputs) refer(v);
    for (ValueId v : n.outputs) refer(v);
    h.number(static_cast<int64_t>(n.attributes.size()));
    for (const Attribute& a : n.attributes) add(h, a);
  }
  for (ValueId id : graph.outputs()) refer(id);
}

}  // namespace

std::string content_key(const Graph& graph) {
  Hasher h;
  for (const auto& [domain, version] : graph.opsets) {
    h.text(domain);
    h.number(static_cast<int64_t>(version));
  }
  add(h, graph);
  return h.hex();
}

}  // namespace infopt
