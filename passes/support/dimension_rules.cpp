#include "passes/support/dimension_rules.h"

#include <algorithm>
#include <map>

#include "passes/support/patterns.h"

namespace infopt {

int64_t Removal::kept(const Positions& atoms, int64_t begin, int64_t end) const {
  int64_t count = 0;
  for (int64_t i = begin; i < end; ++i) count += copies(atoms[static_cast<size_t>(i)]);
  return count;
}

bool Removal::touches(ValueId value) const {
  if (value == kNone) return false;
  const auto& axes = dimensions_.axes();
  for (auto it = axes.lower_bound({value, 0}); it != axes.end() && it->first.first == value; ++it)
    if (kept(it->second) != static_cast<int64_t>(it->second.size())) return true;
  return false;
}

std::optional<std::vector<int64_t>> integers(const Dimensions& d, const Node& n, size_t input, const char* attribute) {
  if (n.input(input) == kNone) return n.find(attribute) ? std::optional(n.ints(attribute)) : std::nullopt;
  const Tensor* t = d.graph().constant(n.input(input));
  return t && is_integer(t->dtype()) ? std::optional(to_vector<int64_t>(*t)) : std::nullopt;
}

void pass_axes(Dimensions& d, const Node& node, ValueId x, ValueId y, const std::vector<int64_t>& to) {
  for (size_t a = 0; a < to.size(); ++a) {
    const Positions* p = d.axis(x, static_cast<int64_t>(a));
    if (!p) continue;
    if (to[a] < 0) d.lock(*p, node.id, node.op + " runs along it");
    else d.set(y, to[a], *p);
  }
}

void pass_axes(Dimensions& d, ValueId x, ValueId y) {
  for (int64_t a = 0; a < d.rank(x); ++a)
    if (const Positions* p = d.axis(x, a)) d.set(y, a, *p);
}

namespace {

void link_unary(Dimensions& d, const Node& n) {
  for (ValueId y : n.outputs)
    if (y != kNone) pass_axes(d, n.input(0), y);
}

/// NumPy's broadcasting, of all inputs.
void link_broadcast(Dimensions& d, const Node& n) {
  int64_t rank = 0;
  for (ValueId v : n.inputs) {
    if (v == kNone) continue;
    if (d.rank(v) < 0) return d.lock_inputs(n, "its shape isn't known");
    rank = std::max(rank, d.rank(v));
  }
  for (int64_t axis = 0; axis < rank; ++axis) {
    const Positions* main = nullptr;
    for (ValueId v : n.inputs)
      if (const Positions* p = v == kNone ? nullptr : d.axis(v, axis - rank + d.rank(v)); p && (!main || main->size() == 1)) main = p;
    if (!main) continue;
    const Positions atoms = *main;
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      const ValueId v = n.inputs[i];
      const int64_t own = v == kNone ? -1 : axis - rank + d.rank(v);
      if (own < 0) continue;
      const int64_t size = d.size(v, own);
      if (const Positions* p = d.axis(v, own); p && p->size() == 1 && atoms.size() > 1) d.lock(*p, n.id, "it is one channel for all");
      else if (size != 1) d.tie(n, i, own, AxisRole::Follows, atoms);
      else if (atoms.size() == 1) d.lock(atoms, n.id, "it is one channel for all");
    }
    d.set(n.outputs[0], axis, atoms);
  }
}

/// Constants of channels times what has one value for all of them, as scales over a deviation: the axis is the constants' own, until it meets a product's.
void link_stretched(Dimensions& d, const Node& n) {
  if (std::any_of(n.inputs.begin(), n.inputs.end(), [&](ValueId v) { return v != kNone && d.tracked(v); })) return link_broadcast(d, n);
  int64_t rank = 0;
  for (ValueId v : n.inputs) {
    const Tensor* t = v == kNone ? nullptr : d.graph().constant(v);
    if (v == kNone || d.rank(v) < 0 || (t && !is_float(t->dtype()))) return;
    rank = std::max(rank, d.rank(v));
  }
  for (int64_t axis = 0; axis < rank; ++axis) {
    int64_t size = 1;
    bool one = false, own = true;
    for (ValueId v : n.inputs) {
      const int64_t at = axis - rank + d.rank(v);
      const auto* dims = d.shapes().dims(v);
      if (const Tensor* t = d.graph().constant(v)) size = std::max(size, at < 0 ? 1 : t->dim(at));
      else one = true, own = own && (at < 0 || (dims && (*dims)[static_cast<size_t>(at)].size == 1));
    }
    if (!one || !own || size == 1) continue;
    const Positions atoms = d.fresh(size);
    for (size_t i = 0; i < n.inputs.size(); ++i)
      if (const int64_t at = axis - rank + d.rank(n.inputs[i]); d.graph().constant(n.inputs[i]) && at >= 0 && d.size(n.inputs[i], at) == size) d.use(n, i, at, AxisRole::Follows, atoms);
    d.set(n.outputs[0], axis, atoms);
  }
}

void link_batch_norm(Dimensions& d, const Node& n) {
  if (const Positions* p = d.axis(n.input(0), 1)) {
    const Positions atoms = *p;
    for (size_t i = 1; i < 5; ++i) d.tie(n, i, 0, AxisRole::Follows, atoms);
  }
  pass_axes(d, n.input(0), n.outputs[0]);
}

void lock_along(Dimensions& d, const Node& n, int64_t from) {
  for (int64_t a = from; a < d.rank(n.input(0)); ++a)
    if (const Positions* p = d.axis(n.input(0), a)) d.lock(*p, n.id, n.op + " runs along it");
}

void link_instance_norm(Dimensions& d, const Node& n) {
  if (const Positions* p = d.axis(n.input(0), 1)) {
    const Positions atoms = *p;
    for (size_t i = 1; i < 3; ++i) d.tie(n, i, 0, AxisRole::Follows, atoms);
  }
  lock_along(d, n, 2);
  pass_axes(d, n.input(0), n.outputs[0]);
}

/// Whole groups go.
void link_group_norm(Dimensions& d, const Node& n) {
  lock_along(d, n, 2);
  if (const Positions* p = d.axis(n.input(0), 1)) {
    const Positions atoms = *p;
    const int64_t groups = n.i("num_groups", 1), channels = static_cast<int64_t>(atoms.size());
    if (groups < 1 || channels % groups != 0) return d.lock(atoms, n.id, "its groups don't divide the channels");
    const int64_t each = channels / groups;
    Positions by_group;
    for (int64_t c = 0; c < channels; ++c) {
      if (c % each == 0) by_group.push_back(atoms[static_cast<size_t>(c)]);
      d.join(atoms[static_cast<size_t>(c)], by_group.back());
    }
    for (size_t i = 1; i < 3; ++i) d.tie(n, i, 0, AxisRole::Follows, d.size(n.input(i), 0) == channels ? atoms : by_group);
  }
  pass_axes(d, n.input(0), n.outputs[0]);
}

void rewrite_group_norm(GraphEdit& edit, NodeId id, const Removal& removal) {
  const Node& n = edit.graph().node(id);
  if (const Positions* p = removal.dimensions().axis(n.input(0), 1))
    edit.set_attribute(id, "num_groups", n.i("num_groups", 1) * removal.kept(*p) / static_cast<int64_t>(p->size()));
}

/// What normalizes over channels: fewer give other statistics, so that to remove a channel isn't to zero it.
void link_layer_norm(Dimensions& d, const Node& n) {
  const ValueId x = n.input(0);
  const int64_t rank = d.rank(x), given = n.i("axis", -1), from = given < 0 ? given + rank : given;
  for (int64_t a = 0; a < rank; ++a) {
    const Positions* p = d.axis(x, a);
    if (!p) continue;
    const Positions atoms = *p;
    if (a >= from) {
      d.mark_width(atoms);
      for (size_t i = 1; i < 3; ++i)
        if (n.input(i) != kNone) d.tie(n, i, a - from, AxisRole::Follows, atoms);
    }
    d.set(n.outputs[0], a, atoms);
  }
}

void link_softmax(Dimensions& d, const Node& n) {
  const ValueId x = n.input(0);
  const bool old = d.graph().opset() < 13 && n.op != "LpNormalization";
  const int64_t rank = d.rank(x), given = n.i("axis", old ? 1 : -1), axis = given < 0 ? given + rank : given;
  for (int64_t a = 0; a < rank; ++a)
    if (const Positions* p = d.axis(x, a); p && (a == axis || (old && a > axis))) d.lock(*p, n.id, n.op + " runs along it");
  pass_axes(d, x, n.outputs[0]);
}

/// Sums and means over channels are of fewer then; extremes lock.
void link_reduce(Dimensions& d, const Node& n) {
  const ValueId x = n.input(0), y = n.outputs[0];
  const int64_t rank = d.rank(x);
  const bool argument = n.op.starts_with("Arg");
  std::optional<std::vector<int64_t>> axes = argument ? std::optional(std::vector<int64_t>{n.i("axis", 0)}) : axes_of(d.graph(), n, 1);
  if (rank < 0 || (!axes && (n.input(1) != kNone || n.find("axes")))) return d.lock_inputs(n, "its axes aren't constant");
  std::vector<bool> reduced(static_cast<size_t>(rank), !axes || (axes->empty() && n.i("noop_with_empty_axes", 0) == 0));
  for (int64_t a : axes ? *axes : std::vector<int64_t>{}) {
    if (a < -rank || a >= rank) return d.lock_inputs(n, "its axes are out of range");
    reduced[static_cast<size_t>(a < 0 ? a + rank : a)] = true;
  }
  const bool sums = n.is("ReduceMean") || n.is("ReduceSum") || n.is("ReduceL2") || n.is("ReduceSumSquare");
  int64_t to = 0;
  for (int64_t a = 0; a < rank; ++a) {
    const Positions* p = d.axis(x, a);
    if (p && reduced[static_cast<size_t>(a)]) {
      if (sums) d.mark_width(*p);
      else d.lock(*p, n.id, n.op + " runs along it");
    } else if (p) {
      d.set(y, to, *p);
    }
    if (!reduced[static_cast<size_t>(a)] || n.i("keepdims", 1) != 0) ++to;
  }
}

/// Windows along the axes behind the second.
void link_pool(Dimensions& d, const Node& n) {
  lock_along(d, n, 2);
  for (ValueId y : n.outputs)
    if (y != kNone)
      for (int64_t a : {0, 1})
        if (const Positions* p = d.axis(n.input(0), a)) d.set(y, a, *p);
}

void link_max_pool(Dimensions& d, const Node& n) {
  if (n.outputs.size() > 1 && n.outputs[1] != kNone) return d.lock_inputs(n, "its indices count channels");
  link_pool(d, n);
}

/// One scale for all, or one a channel of an axis.
void link_quantize(Dimensions& d, const Node& n) {
  const ValueId x = n.input(0);
  if (d.graph().constant(x)) return;
  const int64_t rank = d.rank(x), given = n.i("axis", 1), along = given < 0 ? given + rank : given;
  for (size_t i : {1u, 2u}) {
    if (n.input(i) == kNone || (d.rank(n.input(i)) <= 1 && d.size(n.input(i), 0) <= 1)) continue;
    if (const Positions* p = d.axis(x, along); p && d.rank(n.input(i)) == 1) d.tie(n, i, 0, AxisRole::Follows, Positions(*p));
    else if (d.rank(n.input(i)) != 1) return d.lock_inputs(n, "it is quantized in blocks");
  }
  pass_axes(d, x, n.outputs[0]);
}

/// Nothing of what shrinks goes on: sizes are read, and what needs the old ones keeps them (remove_channels.h).
void link_nothing(Dimensions&, const Node&) {}

}  // namespace

std::vector<DimensionRule> elementwise_dimension_rules() {
  return {
      {{"Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Gelu", "Elu", "Selu", "Celu", "Softplus", "Softsign", "Mish", "Swish", "ThresholdedRelu", "Shrink", "Abs", "Neg", "Exp", "Log",
        "Sqrt", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Tan", "Atan", "Asin", "Acos", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Clip", "Cast", "CastLike", "Identity", "Dropout", "Not",
        "IsNaN", "IsInf", "BitwiseNot"},
       link_unary},
      {{"Add", "Sub", "Mul", "Div"}, link_stretched, nullptr, true},
      {{"Pow", "Min", "Max", "Mean", "Sum", "PRelu", "Where", "And", "Or", "Xor", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Mod", "BitShift"}, link_broadcast},
      {{"BatchNormalization"}, link_batch_norm},
      {{"InstanceNormalization"}, link_instance_norm},
      {{"GroupNormalization"}, link_group_norm, rewrite_group_norm},
      {{"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"}, link_layer_norm},
      {{"Softmax", "LogSoftmax", "Hardmax", "LpNormalization"}, link_softmax},
      {{"ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp", "ArgMax", "ArgMin"}, link_reduce},
      {{"AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"}, link_pool},
      {{"MaxPool"}, link_max_pool},
      {{"QuantizeLinear", "DequantizeLinear"}, link_quantize},
      {{"Shape", "Constant"}, link_nothing},
  };
}

const DimensionRule* find_dimension_rule(const Node& node) {
  static const auto table = [] {
    std::map<std::string_view, DimensionRule> all;
    for (const auto& rules : {product_dimension_rules(), elementwise_dimension_rules(), layout_dimension_rules(), part_dimension_rules()})
      for (const DimensionRule& r : rules)
        for (std::string_view op : r.ops) all.emplace(op, r);
    return all;
  }();
  const auto it = table.find(node.op);
  return node.domain.empty() && it != table.end() ? &it->second : nullptr;
}

}  // namespace infopt
