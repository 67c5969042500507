#include "passes/support/shape_values.h"

#include <algorithm>

#include "lib/ir/edit.h"
#include "lib/onnx/infer.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

constexpr size_t kMost = 64;
constexpr int kDeepest = 200;

/// ONNX's IR specification: a dimension variable is a C identifier, and means the same size wherever it stands. Exporters' "?" isn't one.
bool names_a_size(const std::string& symbol) {
  auto letter = [](char c) { return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  return !symbol.empty() && letter(symbol[0]) && std::all_of(symbol.begin(), symbol.end(), [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

/// Only symbols of the outermost graph's inputs mean something; those without one get one of their own.
void forget_symbols(const std::shared_ptr<Graph>& graph, bool outermost) {
  GraphEdit edit(*graph);
  int64_t next = 0;
  for (size_t i = 0; i < graph->value_capacity(); ++i) {
    const auto v = static_cast<ValueId>(i);
    if (!graph->value_alive(v) || graph->value(v).constant.defined()) continue;
    Type type = graph->value(v).type;
    const bool input = outermost && graph->value(v).graph_input;
    for (Dim& d : type.shape) {
      if (input && d.size < 0 && names_a_size(d.symbol)) continue;
      d.symbol = input && d.size < 0 ? "input dimension " + std::to_string(next++) : "";
    }
    edit.set_type(v, std::move(type));
  }
  for (NodeId id : graph->order())
    for (const auto& body : graph->node(id).bodies()) forget_symbols(body, false);
}

Element number(int64_t n) { return {n, {}}; }

bool integral(DType t) { return t == DType::I64 || t == DType::I32 || t == DType::Bool; }

std::optional<int64_t> whole(const Graph& graph, ValueId v) {
  const Tensor* t = graph.constant(v);
  return t && t->size() == 1 && integral(t->dtype()) ? std::optional(to_scalar<int64_t>(*t)) : std::nullopt;
}

Element combine(const std::string& op, const Element& a, const Element& b) {
  if (op == "Equal") {
    if (a.number && b.number) return number(*a.number == *b.number);
    if (!a.symbol.empty() && a.symbol == b.symbol) return number(1);
    const Element& n = a.number ? a : b;
    const Element& other = a.number ? b : a;
    if (n.number && *n.number < 0 && !other.symbol.empty()) return number(0);
    return {};
  }
  constexpr int64_t kFar = int64_t{1} << 31;  // far from overflow
  if (a.number && b.number && std::abs(*a.number) < kFar && std::abs(*b.number) < kFar) {
    if (op == "Add") return number(*a.number + *b.number);
    if (op == "Sub") return number(*a.number - *b.number);
    if (op == "Mul") return number(*a.number * *b.number);
    if (op == "Div" && *b.number > 0 && *a.number >= 0) return number(*a.number / *b.number);
    return {};
  }
  const int64_t neutral = op == "Mul" || op == "Div" ? 1 : 0;
  if (b.number && *b.number == neutral) return a;
  if (a.number && *a.number == neutral && (op == "Add" || op == "Mul")) return b;
  return {};
}

}  // namespace

std::shared_ptr<Graph> infer_afresh(const Model& model, const Graph& graph) {
  Model copy = model;
  copy.graph = graph.clone();
  forget_symbols(copy.graph, true);
  infer_types(copy, true);
  return copy.graph;
}

const std::vector<Dim>* ShapeValues::dims(ValueId value) const {
  if (value == kNone || !inferred_.value_alive(value)) return nullptr;
  const Type& type = inferred_.value(value).type;
  return type.has_shape ? &type.shape : nullptr;
}

DType ShapeValues::dtype(ValueId value) const {
  if (value == kNone) return DType::Undefined;
  if (const Tensor* t = graph_.constant(value)) return t->dtype();
  return inferred_.value_alive(value) ? inferred_.value(value).type.dtype : DType::Undefined;
}

const Elements* ShapeValues::elements(ValueId value) {
  if (value == kNone) return nullptr;
  if (const auto it = memo_.find(value); it != memo_.end()) return it->second ? &*it->second : nullptr;
  std::optional<Elements> found;
  if (const Tensor* t = graph_.constant(value)) {
    if (integral(t->dtype()) && static_cast<size_t>(t->size()) <= kMost) {
      found.emplace();
      for (int64_t n : to_vector<int64_t>(*t)) found->push_back(number(n));
    }
  } else if (const Node* p = graph_.producer(value); p && p->domain.empty() && p->outputs.size() == 1 && integral(dtype(value)) && depth_ < kDeepest) {
    ++depth_;
    found = compute(*p);
    --depth_;
  }
  if (found && found->size() > kMost) found.reset();
  auto& kept = memo_[value] = std::move(found);
  return kept ? &*kept : nullptr;
}

std::optional<Elements> ShapeValues::compute(const Node& n) {
  if (n.op == "Shape") {
    const auto* shape = dims(n.input(0));
    if (!shape) return std::nullopt;
    const auto rank = static_cast<int64_t>(shape->size());
    auto clamp = [&](int64_t at) { return std::clamp(at < 0 ? at + rank : at, int64_t{0}, rank); };
    Elements out;
    for (int64_t i = clamp(n.i("start", 0)); i < clamp(n.i("end", rank)); ++i) {
      const Dim& d = (*shape)[static_cast<size_t>(i)];
      out.push_back(d.size >= 0 ? number(d.size) : Element{std::nullopt, d.symbol});
    }
    return out;
  }
  if (n.op == "Identity" || n.op == "Cast" || n.op == "Squeeze" || n.op == "Unsqueeze" || n.op == "Reshape" || n.op == "Flatten") {
    if (!integral(dtype(n.input(0)))) return std::nullopt;
    if (n.op == "Cast" && n.i("to", 0) == static_cast<int64_t>(DType::Bool)) return std::nullopt;
    const Elements* x = elements(n.input(0));
    return x ? std::optional(*x) : std::nullopt;
  }
  if (n.op == "Gather" || n.op == "Slice") return picked(n);
  if (n.op == "Concat") {
    Elements out;
    for (ValueId v : n.inputs) {
      const Elements* x = elements(v);
      const auto rank = graph_.constant(v) ? graph_.constant(v)->rank() : dims(v) ? static_cast<int64_t>(dims(v)->size()) : -1;
      if (!x || rank != 1) return std::nullopt;
      out.insert(out.end(), x->begin(), x->end());
    }
    return out;
  }
  return elementwise(n);
}

std::optional<Elements> ShapeValues::picked(const Node& n) {
  const Elements* x = elements(n.input(0));
  const auto* shape = dims(n.input(0));
  const auto rank = graph_.constant(n.input(0)) ? graph_.constant(n.input(0))->rank() : shape ? static_cast<int64_t>(shape->size()) : -1;
  if (!x || rank != 1) return std::nullopt;
  const auto count = static_cast<int64_t>(x->size());
  Elements out;
  if (n.op == "Gather") {
    const Tensor* at = graph_.constant(n.input(1));
    if (!at || !is_integer(at->dtype())) return std::nullopt;
    for (int64_t i : to_vector<int64_t>(*at)) {
      if (i < -count || i >= count) return std::nullopt;
      out.push_back((*x)[static_cast<size_t>(i < 0 ? i + count : i)]);
    }
    return out;
  }
  if (n.find("starts")) return std::nullopt;
  const auto start = whole(graph_, n.input(1)), end = whole(graph_, n.input(2));
  const auto step = n.input(4) == kNone ? std::optional<int64_t>(1) : whole(graph_, n.input(4));
  if (!start || !end || step != 1) return std::nullopt;
  auto clamp = [&](int64_t at) { return std::clamp(at < 0 ? at + count : at, int64_t{0}, count); };
  for (int64_t i = clamp(*start); i < clamp(*end); ++i) out.push_back((*x)[static_cast<size_t>(i)]);
  return out;
}

std::optional<Elements> ShapeValues::elementwise(const Node& n) {
  const bool where = n.op == "Where";
  if (!where && n.op != "Add" && n.op != "Sub" && n.op != "Mul" && n.op != "Div" && n.op != "Equal") return std::nullopt;
  std::vector<const Elements*> x;
  size_t count = 1;
  for (ValueId v : n.inputs) {
    const auto* shape = dims(v);
    const int64_t rank = graph_.constant(v) ? graph_.constant(v)->rank() : shape ? static_cast<int64_t>(shape->size()) : 2;
    x.push_back(rank <= 1 ? elements(v) : nullptr);
    if (!x.back()) return std::nullopt;
    if (x.back()->size() != 1) count = x.back()->size();
  }
  for (const Elements* e : x)
    if (e->size() != 1 && e->size() != count) return std::nullopt;
  Elements out;
  for (size_t i = 0; i < count; ++i) {
    auto at = [&](size_t input) { return (*x[input])[x[input]->size() == 1 ? 0 : i]; };
    if (!where) out.push_back(combine(n.op, at(0), at(1)));
    else if (at(0).number) out.push_back(*at(0).number ? at(1) : at(2));
    else out.push_back(at(1) == at(2) ? at(1) : Element{});
  }
  return out;
}

}  // namespace infopt
