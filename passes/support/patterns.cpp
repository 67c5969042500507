#include "passes/support/patterns.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace infopt {
namespace {

void add_log(EditLog& to, EditLog& from) {
  to.nodes_added += from.nodes_added;
  to.nodes_removed += from.nodes_removed;
  to.constants_added += from.constants_added;
  to.values_replaced += from.values_replaced;
  to.attributes_changed += from.attributes_changed;
  std::move(from.notes.begin(), from.notes.end(), std::back_inserter(to.notes));
}

}  // namespace

void each_graph(GraphEdit& edit, const std::function<void(GraphEdit&)>& pass) {
  pass(edit);
  edit.finish();
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order)
    for (const auto& body : edit.graph().node(id).bodies()) {
      GraphEdit inner(*body);
      each_graph(inner, pass);
      inner.finish();
      add_log(edit.log(), inner.log());
    }
}

std::optional<double> splat(const Graph& graph, ValueId value) {
  const Tensor* t = graph.constant(value);
  if (!t || t->size() == 0 || (!is_float(t->dtype()) && !is_integer(t->dtype()))) return std::nullopt;
  const size_t each = bits_of(t->dtype()) / 8;
  if (t->size() == 1) return to_scalar<double>(*t);
  if (each == 0 || std::memcmp(t->raw(), t->raw() + each, t->bytes() - each) != 0) return std::nullopt;  // each as the one before
  return to_scalar<double>(Tensor(t->dtype(), {}, std::make_shared<Tensor>(*t), t->raw()));
}

std::optional<double> scalar(const Graph& graph, ValueId value) {
  const Tensor* t = graph.constant(value);
  return t && t->size() == 1 ? splat(graph, value) : std::nullopt;
}

bool near_to(double a, double b) { return std::fabs(a - b) <= 1e-6 * std::max(1.0, std::fabs(b)); }

const Node* made_by(const Graph& graph, ValueId value, std::string_view op) {
  const Node* n = graph.producer(value);
  return n && n->is(op) ? n : nullptr;
}

const Node* made_only_for(const Graph& graph, ValueId value, std::string_view op) {
  const Node* n = made_by(graph, value, op);
  return n && graph.sole_consumer(value) ? n : nullptr;
}

int64_t rank_of(const Graph& graph, ValueId value) {
  if (value == kNone) return -1;
  if (const Tensor* t = graph.constant(value)) return t->rank();
  const Type& type = graph.value(value).type;
  return type.has_shape ? static_cast<int64_t>(type.shape.size()) : -1;
}

DType dtype_of_value(const Graph& graph, ValueId value) {
  if (value == kNone) return DType::Undefined;
  if (const Tensor* t = graph.constant(value)) return t->dtype();
  return graph.value(value).type.dtype;
}

bool keeps_shape(const Graph& graph, ValueId value, const Shape& constant) {
  if (value == kNone) return false;
  const Type& type = graph.value(value).type;
  const auto rank = static_cast<int64_t>(constant.size());
  const bool ones = std::all_of(constant.begin(), constant.end(), [](int64_t d) { return d == 1; });
  if (rank == 0) return true;
  if (!type.has_shape || static_cast<int64_t>(type.shape.size()) < rank) return false;
  if (ones) return true;
  for (int64_t i = 1; i <= rank; ++i) {
    const int64_t c = constant[static_cast<size_t>(rank - i)];
    if (c != 1 && c != type.shape[type.shape.size() - static_cast<size_t>(i)].size) return false;
  }
  return true;
}

std::optional<std::vector<double>> per_channel(const Tensor& constant, int64_t rank, int64_t axis, int64_t channels) {
  if (!is_float(constant.dtype()) || constant.rank() > rank) return std::nullopt;
  if (constant.size() == 1) return std::vector<double>(static_cast<size_t>(channels), to_scalar<double>(constant));
  if (constant.size() != channels) return std::nullopt;
  for (int64_t i = 0; i < constant.rank(); ++i) {
    const int64_t at = rank - constant.rank() + i;
    if (constant.dim(i) != (at == axis ? channels : 1)) return std::nullopt;
  }
  return to_vector<double>(constant);
}

std::optional<std::vector<int64_t>> axes_of(const Graph& graph, const Node& node, size_t index) {
  if (const auto* a = node.get<std::vector<int64_t>>("axes")) return *a;
  if (node.input(index) == kNone) return std::vector<int64_t>{};
  const Tensor* t = graph.constant(node.input(index));
  return t ? std::optional(to_vector<int64_t>(*t)) : std::nullopt;
}

Tensor rounded(const std::vector<double>& values, Shape shape, DType dtype) {
  const Tensor exact = Tensor::vector(values).reshaped(std::move(shape));
  return dtype == DType::F64 ? exact : cast(exact, dtype);
}

void replace_and_remove(GraphEdit& edit, ValueId from, ValueId to) {
  if (edit.replaceable(from, to)) {
    edit.replace_uses(from, to);
  } else {
    const ValueId made = edit.add({"Identity"}, {to}, edit.graph().value(from).producer);
    edit.set_type(made, edit.graph().value(from).type);
    edit.replace_uses(from, made);
  }
  std::string name = edit.graph().value(from).name;
  remove_unused(edit, from);
  if (edit.graph().value(to).name.empty() && !edit.graph().value_alive(from)) edit.set_name(to, std::move(name));
}

void remove_unused(GraphEdit& edit, ValueId value) {
  std::vector<ValueId> open{value};
  while (!open.empty()) {
    const ValueId v = open.back();
    open.pop_back();
    const Graph& graph = edit.graph();
    if (v == kNone || !graph.value_alive(v)) continue;
    const Node* n = graph.producer(v);
    if (!n || std::any_of(n->outputs.begin(), n->outputs.end(), [&](ValueId o) { return o != kNone && !graph.value(o).uses.empty(); })) continue;
    open.insert(open.end(), n->inputs.begin(), n->inputs.end());
    open.insert(open.end(), n->captures.begin(), n->captures.end());
    edit.remove_node(n->id);
  }
}

}  // namespace infopt
