#include "lib/onnx/names.h"

namespace infopt {
namespace {

std::string stem_of(const Graph& graph, const Value& v) {
  if (v.producer != kNone) return graph.node(v.producer).op;
  return v.constant.defined() ? "constant" : "value";
}

}  // namespace

ValueNames::ValueNames(const Graph& root) {
  collect(root);
  std::unordered_set<std::string> visible;
  assign(root, nullptr, visible);
}

void ValueNames::collect(const Graph& graph) {
  for (size_t i = 0; i < graph.value_capacity(); ++i)
    if (graph.value_alive(static_cast<ValueId>(i))) used_.insert(graph.value(static_cast<ValueId>(i)).name);
  for (NodeId id : graph.order())
    for (const auto& body : graph.node(id).bodies()) collect(*body);
}

std::string ValueNames::fresh(const std::string& stem) {
  int64_t& n = next_[stem];
  while (true) {
    std::string name = stem + "_" + std::to_string(n++);
    if (used_.insert(name).second) return name;
  }
}

void ValueNames::assign(const Graph& graph, const Graph* parent, std::unordered_set<std::string>& visible) {
  std::vector<std::string> names(graph.value_capacity());
  std::unordered_set<std::string> taken;
  auto keep = [&](ValueId id) {
    const Value& v = graph.value(id);
    std::string& name = names[static_cast<size_t>(id)];
    if (!name.empty() || v.name.empty() || v.outer != kNone) return;
    if (!visible.contains(v.name) && taken.insert(v.name).second) name = v.name;
  };
  for (ValueId id : graph.inputs()) keep(id);
  for (ValueId id : graph.outputs()) keep(id);
  auto each = [&](auto visit) {
    for (size_t i = 0; i < graph.value_capacity(); ++i)
      if (graph.value_alive(static_cast<ValueId>(i))) visit(graph.value(static_cast<ValueId>(i)));
  };
  each([&](const Value& v) {
    if (v.outer != kNone) names[static_cast<size_t>(v.id)] = parent ? of(*parent, v.outer) : v.name;
    else keep(v.id);
  });
  auto fill = [&](const Value& v) {
    std::string& name = names[static_cast<size_t>(v.id)];
    if (name.empty()) name = fresh(stem_of(graph, v));
  };
  each([&](const Value& v) {
    if (v.producer == kNone) fill(v);
  });
  for (NodeId id : graph.order())
    for (ValueId o : graph.node(id).outputs)
      if (o != kNone) fill(graph.value(o));
  names_[&graph] = names;

  std::vector<std::string> added;
  auto show = [&](ValueId id) {
    if (visible.insert(names[static_cast<size_t>(id)]).second) added.push_back(names[static_cast<size_t>(id)]);
  };
  each([&](const Value& v) {
    if (v.producer == kNone) show(v.id);
  });
  for (NodeId id : graph.order()) {
    for (const auto& body : graph.node(id).bodies()) assign(*body, &graph, visible);
    for (ValueId o : graph.node(id).outputs)
      if (o != kNone) show(o);
  }
  for (const auto& name : added) visible.erase(name);
}

}  // namespace infopt
