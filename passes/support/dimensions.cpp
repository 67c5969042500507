#include "passes/support/dimensions.h"

#include <algorithm>

#include "lib/base/error.h"
#include "passes/support/dimension_rules.h"

namespace infopt {

Dimensions::Dimensions(const Model& model, const Graph& graph, std::vector<Observed> seen)
    : graph_(graph), seen_(std::move(seen)), inferred_(infer_afresh(model, graph)), shapes_(std::make_unique<ShapeValues>(graph, *inferred_)), tracked_(graph.value_capacity(), false) {
  seen_.resize(graph.value_capacity());
  run();
  settle_marks();
}

void Dimensions::run() {
  for (NodeId id : graph_.order()) {
    const Node& n = graph_.node(id);
    const auto reads = [&](const std::vector<ValueId>& list) { return std::any_of(list.begin(), list.end(), [&](ValueId v) { return v != kNone && tracked(v); }); };
    for (ValueId v : n.captures)
      for (int64_t a = 0; v != kNone && tracked(v) && a < rank(v); ++a)
        if (const Positions* p = axis(v, a)) lock(*p, id, "read inside " + n.op);
    const bool whole = n.input(0) != kNone && !n.outputs.empty() && n.outputs[0] != kNone;
    const DimensionRule* rule = find_dimension_rule(n);
    if (rule && !whole) lock_inputs(n, "it lacks an input or its output");
    else if (rule && rule->begins) rule->link(*this, n);
    else if (rule && reads(n.inputs)) rule->link(*this, n);
    else if (!rule) lock_inputs(n, "no rule follows channels through " + (n.domain.empty() ? n.op : n.domain + "." + n.op));
  }
  for (ValueId v : graph_.outputs())
    for (int64_t a = 0; tracked(v) && a < rank(v); ++a)
      if (const Positions* p = axis(v, a)) lock(*p, kNone, "the model gives it out", true);
}

void Dimensions::settle_marks() {
  for (const auto& [atom, lock] : lock_list_) {
    const auto [it, added] = locks_.emplace(find(atom), lock);
    if (!added && it->second.output && !lock.output) it->second = lock;
  }
  // What is an output's dimension says so first.
  for (const auto& [atom, lock] : lock_list_)
    if (lock.output) locks_[find(atom)] = lock;
  for (int32_t atom : head_list_) head_[find(atom)] = true;
  for (int32_t atom : width_list_) width_[find(atom)] = true;
}

const Positions* Dimensions::axis(ValueId value, int64_t axis) const {
  if (value == kNone || !tracked(value)) return nullptr;
  const auto it = axes_.find({value, axis});
  return it == axes_.end() ? nullptr : &it->second;
}

int32_t Dimensions::find(int32_t atom) const {
  auto& p = parent_;
  while (p[static_cast<size_t>(atom)] != atom) atom = p[static_cast<size_t>(atom)] = p[static_cast<size_t>(p[static_cast<size_t>(atom)])];
  return atom;
}

const Lock* Dimensions::locked(int32_t atom) const {
  const auto it = locks_.find(find(atom));
  return it == locks_.end() ? nullptr : &it->second;
}

int64_t Dimensions::rank(ValueId value) const {
  if (value == kNone) return -1;
  if (const Tensor* t = graph_.constant(value)) return t->rank();
  if (const auto* dims = shapes_->dims(value)) return static_cast<int64_t>(dims->size());
  const Observed& o = seen_[static_cast<size_t>(value)];
  return o.dtype == DType::Undefined ? -1 : static_cast<int64_t>(o.shape.size());
}

int64_t Dimensions::size(ValueId value, int64_t axis) const {
  if (axis < 0 || axis >= rank(value)) return -1;
  if (const Tensor* t = graph_.constant(value)) return t->dim(axis);
  if (const Positions* p = this->axis(value, axis)) return static_cast<int64_t>(p->size());
  if (const auto* dims = shapes_->dims(value); dims && (*dims)[static_cast<size_t>(axis)].size >= 0) return (*dims)[static_cast<size_t>(axis)].size;
  const Observed& o = seen_[static_cast<size_t>(value)];
  return o.dtype == DType::Undefined || axis >= static_cast<int64_t>(o.shape.size()) ? -1 : o.shape[static_cast<size_t>(axis)];
}

bool Dimensions::same_size(ValueId a, int64_t i, ValueId b, int64_t j) const {
  const auto *x = shapes_->dims(a), *y = shapes_->dims(b);
  if (!x || !y || i >= static_cast<int64_t>(x->size()) || j >= static_cast<int64_t>(y->size())) return false;
  const Dim &p = (*x)[static_cast<size_t>(i)], &q = (*y)[static_cast<size_t>(j)];
  return p.size >= 0 ? p.size == q.size : q.size < 0 && !p.symbol.empty() && p.symbol == q.symbol;
}

bool Dimensions::tracked(ValueId value) const { return value != kNone && tracked_[static_cast<size_t>(value)]; }

bool Dimensions::weights(ValueId value) const {
  if (value == kNone) return false;
  if (graph_.constant(value)) return true;
  const Node* p = graph_.producer(value);
  if (!p || !p->is("DequantizeLinear") || !graph_.sole_consumer(value)) return false;
  const Tensor* scale = graph_.constant(p->input(1));
  const bool plain = graph_.constant(p->input(0)) && scale && scale->rank() <= 1 && p->i("block_size", 0) == 0;
  return plain && (p->input(2) == kNone || graph_.constant(p->input(2)));
}

Positions Dimensions::fresh(int64_t count) {
  Positions out;
  for (int64_t i = 0; i < count; ++i) {
    out.push_back(static_cast<int32_t>(parent_.size()));
    parent_.push_back(out.back());
  }
  return out;
}

void Dimensions::set(ValueId value, int64_t axis, Positions atoms) {
  if (value == kNone || atoms.empty()) return;
  tracked_[static_cast<size_t>(value)] = true;
  axes_[{value, axis}] = std::move(atoms);
}

void Dimensions::join(int32_t a, int32_t b) {
  a = find(a), b = find(b);
  parent_[static_cast<size_t>(std::max(a, b))] = std::min(a, b);
}

void Dimensions::join(const Positions& a, const Positions& b) {
  if (a.size() != b.size()) {
    lock(a, kNone, "it meets a dimension of another size");
    lock(b, kNone, "it meets a dimension of another size");
    return;
  }
  for (size_t i = 0; i < a.size(); ++i) join(a[i], b[i]);
}

void Dimensions::lock(const Positions& atoms, NodeId node, const std::string& reason, bool output) {
  for (int32_t a : atoms) lock_list_.emplace_back(a, Lock{reason, node, output});
}

void Dimensions::lock_inputs(const Node& node, const std::string& reason) {
  for (ValueId v : node.inputs)
    for (int64_t a = 0; v != kNone && tracked(v) && a < rank(v); ++a)
      if (const Positions* p = axis(v, a)) lock(*p, node.id, reason);
}

void Dimensions::mark_head(const Positions& atoms) { head_list_.insert(head_list_.end(), atoms.begin(), atoms.end()); }
void Dimensions::mark_width(const Positions& atoms) { width_list_.insert(width_list_.end(), atoms.begin(), atoms.end()); }

void Dimensions::use(const Node& node, size_t input, int64_t axis, AxisRole role, const Positions& atoms) {
  const ValueId v = node.input(input);
  if (size(v, axis) != static_cast<int64_t>(atoms.size())) return lock(atoms, node.id, "it meets a constant of another size");
  if (graph_.constant(v)) {
    uses_.push_back({node.id, input, axis, role, atoms});
    return;
  }
  const Node& dequantize = *graph_.producer(v);
  uses_.push_back({dequantize.id, 0, axis, role, atoms});
  const int64_t along = dequantize.i("axis", 1);
  for (size_t i : {1u, 2u}) {
    const Tensor* t = graph_.constant(dequantize.input(i));
    if (t && t->rank() == 1 && t->size() > 1 && (along < 0 ? along + rank(v) : along) == axis) uses_.push_back({dequantize.id, i, 0, AxisRole::Follows, atoms});
  }
}

void Dimensions::tie(const Node& node, size_t input, int64_t axis, AxisRole role, const Positions& atoms) {
  const ValueId v = node.input(input);
  if (const Positions* p = this->axis(v, axis)) return join(*p, atoms);
  if (weights(v)) return use(node, input, axis, role, atoms);
  lock(atoms, node.id, "it meets a fixed dimension of " + (graph_.value(v).name.empty() ? "a value" : graph_.value(v).name));
}

}  // namespace infopt
