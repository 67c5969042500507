// fold_constants
//
// before     y = f(c1, c2, …) with constants only;  n = Shape(x)[1], a dimension that is known;  If(true) { then } else { else };
//            Reshape(x, Concat(Shape(x)[0], …, 12, 64)), Expand(x, Shape(x)): what exporters write for dynamic batches
// after      y an initializer with what f gives on the CPU;  n the same;  the branch's nodes in If's place;
//            Reshape(x, [0, -1, 12, 64]);  x
// conditions f is deterministic, has no body, and infopt can run it. y is no graph output. y takes no more bytes than those of its inputs
//            that nobody else reads, or at most max_bytes. Transposes of matrices that others still read (tied embeddings) make the file
//            larger by at most max_growth together: the engine folds the others when it loads. Never decoded: DequantizeLinear of constants, integers of 8 bits or fewer cast to
//            floats (storage form), and (half_weights: keep) large float16 or bfloat16 weights cast to something wider: they were
//            stored so to save bytes. Shapes of what standard operators make are inferred, never believed because the file declares
//            them. In a Reshape one dimension at most may be open, besides those that are the input's own; where the target's last is -1,
//            a MatMul with constant weights behind it tells it.
// formula    –
#include <algorithm>
#include <unordered_map>

#include "lib/base/error.h"
#include "lib/runtime/session.h"
#include "passes/pass.h"
#include "passes/support/inline_body.h"
#include "passes/support/patterns.h"
#include "passes/support/random_ops.h"
#include "passes/support/shape_values.h"

namespace infopt {
namespace {

/// Half-stored tensors up to this size are decoded: scales, biases.
constexpr int64_t kSmall = 1024;
constexpr size_t kSmallGrowth = 64 << 10;  ///< bytes that any model may grow by
constexpr int kRounds = 8;

/// A graph and those around it: a body sees its parents' constants.
struct Scope {
  const Graph& graph;
  const Graph& inferred;  ///< the same graph, with the types that inference gives it
  const Scope* parent;
};

const Tensor* constant_of(const Scope& scope, ValueId id) {
  if (const Tensor* t = scope.graph.constant(id)) return t;
  if (id == kNone || !scope.parent || scope.graph.value(id).outer == kNone) return nullptr;
  return constant_of(*scope.parent, scope.graph.value(id).outer);
}

/// Folding would store in full what the file stores in fewer bits.
bool decodes(const Scope& scope, const Node& n, bool keep_half) {
  if (n.is("DequantizeLinear") || n.domain == "com.microsoft") return true;
  if (!n.is("Cast") && !n.is("CastLike")) return false;
  const Tensor* x = constant_of(scope, n.input(0));
  const auto to = static_cast<DType>(n.i("to", 0));
  if (!x || x->dtype() == DType::Bool || x->dtype() == DType::String) return false;
  const size_t bits = bits_of(x->dtype());
  if (is_integer(x->dtype())) return bits <= 8 && x->size() > 1 && (n.is("CastLike") || is_float(to));
  return keep_half && is_float(x->dtype()) && bits <= 16 && x->size() > kSmall && (n.is("CastLike") || bits_of(to) > bits);
}

/// Bytes of the constants that vanish with the node.
size_t freed(const Scope& scope, const Node& n) {
  size_t bytes = 0;
  for (size_t i = 0; i < n.inputs.size(); ++i) {
    const ValueId v = n.inputs[i];
    if (v == kNone || std::find(n.inputs.begin(), n.inputs.begin() + static_cast<std::ptrdiff_t>(i), v) != n.inputs.begin() + static_cast<std::ptrdiff_t>(i)) continue;
    const auto& uses = scope.graph.value(v).uses;
    const bool mine = std::all_of(uses.begin(), uses.end(), [&](const Use& u) { return u.node == n.id && u.index >= 0; });
    if (const Tensor* t = scope.graph.constant(v); t && mine) bytes += t->bytes();
  }
  return bytes;
}

struct Limits {
  size_t max_bytes;
  bool keep_half;
  size_t& growth;  ///< bytes by which copies in another order may still make the file larger
};

class Folder {
 public:
  Folder(GraphEdit& edit, Scope scope, Limits limits) : edit_(edit), scope_(scope), limits_(limits) {}

  bool run() {
    bool changed = false;
    const std::vector<NodeId> order = edit_.graph().order();
    for (NodeId id : order) {
      if (!edit_.graph().alive(id)) continue;
      move_before_cast(id);
      changed |= inline_if(id) || fold(id);
    }
    return changed;
  }

 private:
  const Graph& graph() const { return edit_.graph(); }

  bool foldable(const Node& n) const {
    if (n.outputs.empty() || n.is("Identity") || !n.bodies().empty() || !n.captures.empty()) return false;
    for (ValueId o : n.outputs)
      if (o != kNone && graph().is_output(o)) return false;
    return std::any_of(n.outputs.begin(), n.outputs.end(), [&](ValueId o) { return o != kNone && !graph().value(o).uses.empty(); });
  }

  bool fold(NodeId id) {
    const Node& n = graph().node(id);
    if (!foldable(n)) return false;
    if (n.is("Constant")) {
      if (const Tensor* t = n.get<Tensor>("value")) return put(id, {*t});
    }
    if (auto shape = static_shape(n)) return put(id, {std::move(*shape)});
    if (std::any_of(n.inputs.begin(), n.inputs.end(), [&](ValueId v) { return v != kNone && !constant_of(scope_, v); })) return false;
    if (is_random(n, graph().opset(n.domain)) || decodes(scope_, n, limits_.keep_half)) return false;
    const bool decoding = !limits_.keep_half && n.is("Cast") && n.input(0) != kNone && bits_of(constant_of(scope_, n.input(0))->dtype()) == 16;
    const size_t free = freed(scope_, n) * (decoding ? 2 : 1), limit = std::max(limits_.max_bytes, free);
    if (surely_larger(n, limit)) return false;
    std::vector<Tensor> results = evaluate(n);
    size_t bytes = 0;
    for (const Tensor& t : results) bytes += t.bytes();
    if (results.empty() || bytes > limit) return false;
    if (n.is("Transpose") && bytes > free) {
      if (bytes - free > limits_.growth) return false;
      limits_.growth -= bytes - free;
    }
    return put(id, std::move(results));
  }

  /// Moves of elements behind a Cast that stays (half-stored weights) come before it, where they can be folded.
  void move_before_cast(NodeId id) {
    const Node& n = graph().node(id);
    if (output_of(n) == kNone) return;
    if (!n.is("Transpose") && !n.is("Reshape") && !n.is("Squeeze") && !n.is("Unsqueeze") && !n.is("Flatten") && !n.is("Slice")) return;
    const Node* cast = made_only_for(graph(), n.input(0), "Cast");
    if (!cast || !graph().constant(cast->input(0)) || !decodes(scope_, *cast, limits_.keep_half) || !foldable(n)) return;
    for (size_t i = 1; i < n.inputs.size(); ++i)
      if (n.inputs[i] != kNone && !constant_of(scope_, n.inputs[i])) return;
    const ValueId stored = cast->input(0), decoded = n.input(0), moved = n.outputs[0];
    const NodeId later = edit_.add_node({"Cast", {}, cast->name, cast->attributes}, {moved}, {edit_.add_value({}, graph().value(moved).type)});
    edit_.replace_uses_except(moved, graph().node(later).outputs[0], later);
    edit_.set_input(id, 0, stored);
    edit_.set_type(moved, {});
    remove_unused(edit_, decoded);
  }

  /// Shape or Size of a value whose shape is known.
  std::optional<Tensor> static_shape(const Node& n) const {
    if ((!n.is("Shape") && !n.is("Size")) || n.input(0) == kNone) return std::nullopt;
    const Tensor* t = constant_of(scope_, n.input(0));
    const auto shape = t ? std::optional(t->shape()) : scope_.inferred.value_alive(n.input(0)) ? scope_.inferred.value(n.input(0)).type.fixed_shape() : std::nullopt;
    if (!shape) return std::nullopt;
    if (n.is("Size")) return Tensor::scalar<int64_t>(element_count(*shape));
    const auto rank = static_cast<int64_t>(shape->size());
    auto clamp = [&](int64_t at) { return std::clamp(at < 0 ? at + rank : at, int64_t{0}, rank); };
    const int64_t start = clamp(n.i("start", 0)), end = clamp(n.i("end", rank));
    return Tensor::vector(std::vector<int64_t>(shape->begin() + start, shape->begin() + std::max(start, end)));
  }

  /// True where the declared shape says before any work that the result is too large.
  bool surely_larger(const Node& n, size_t limit) const {
    if (n.is("ConstantOfShape") || n.is("Expand")) {
      const Tensor* t = constant_of(scope_, n.input(n.is("Expand") ? 1 : 0));
      if (!t || !is_integer(t->dtype())) return false;
      double count = 1;
      for (int64_t d : to_vector<int64_t>(*t)) count *= static_cast<double>(std::max<int64_t>(d, 1));
      return count > static_cast<double>(limit);  // of at least a byte each
    }
    const auto shape = n.outputs[0] != kNone && scope_.inferred.value_alive(n.outputs[0]) ? scope_.inferred.value(n.outputs[0]).type.fixed_shape() : std::nullopt;
    if (!shape) return false;
    double count = 1;
    for (int64_t d : *shape) count *= static_cast<double>(d);
    return count > static_cast<double>(limit) * 8;  // of at least a bit each
  }

  /// The outputs that are used, in order; none where infopt can't run the node, or it fails: it then stays for the engine to judge.
  std::vector<Tensor> evaluate(const Node& n) const {
    Graph small;
    small.opsets = graph().opsets;
    std::vector<ValueId> fetches;
    {
      GraphEdit edit(small);
      std::unordered_map<ValueId, ValueId> made;
      std::vector<ValueId> inputs, outputs;
      for (ValueId v : n.inputs) {
        if (v != kNone && !made.contains(v)) made[v] = edit.add_constant(*constant_of(scope_, v));
        inputs.push_back(v == kNone ? kNone : made[v]);
      }
      for (ValueId o : n.outputs) {
        const bool wanted = o != kNone && !graph().value(o).uses.empty();
        outputs.push_back(wanted ? edit.add_value() : kNone);
        if (wanted) fetches.push_back(outputs.back());
      }
      edit.add_node({n.op, n.domain, n.name, n.attributes}, std::move(inputs), std::move(outputs));
      for (ValueId f : fetches) edit.add_output(f);
    }
    try {
      return Session(small, {.fetches = fetches, .fuse = false}).run(std::unordered_map<ValueId, Tensor>{});
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::Unsupported && e.kind() != ErrorKind::Malformed && e.kind() != ErrorKind::Limit) throw;
      return {};
    }
  }

  /// The node's used outputs become these constants.
  bool put(NodeId id, std::vector<Tensor> results) {
    const std::vector<ValueId> outputs = graph().node(id).outputs;
    std::vector<std::pair<ValueId, std::string>> named;
    size_t next = 0;
    for (ValueId o : outputs) {
      if (o == kNone || graph().value(o).uses.empty()) continue;
      named.emplace_back(edit_.add_constant(std::move(results[next++])), graph().value(o).name);
      edit_.replace_uses(o, named.back().first);
    }
    edit_.remove_node(id);
    for (auto& [value, name] : named) edit_.set_name(value, std::move(name));
    return true;
  }

  bool inline_if(NodeId id) {
    const Node& n = graph().node(id);
    if (!n.is("If")) return false;
    const Tensor* condition = constant_of(scope_, n.input(0));
    if (!condition || condition->dtype() != DType::Bool || condition->size() != 1) return false;
    const auto* branch = n.get<std::shared_ptr<Graph>>(to_scalar<int64_t>(*condition) != 0 ? "then_branch" : "else_branch");
    if (!branch || !*branch || (*branch)->outputs().size() < n.outputs.size()) return false;
    edit_.note("'" + graph().label(id) + "' always takes one branch");
    const std::shared_ptr<Graph> body = *branch;  // outlives the node
    inline_body(edit_, id, *body, {});
    return true;
  }

  GraphEdit& edit_;
  Scope scope_;
  Limits limits_;
};

bool fold_graph(GraphEdit& edit, const Graph& inferred, const Scope* parent, Limits limits) {
  const Scope scope{edit.graph(), inferred, parent};
  bool changed = Folder(edit, scope, limits).run();
  edit.finish();
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order) {
    const auto bodies = edit.graph().node(id).bodies();
    if (bodies.empty()) continue;
    const auto known = inferred.alive(id) ? inferred.node(id).bodies() : std::vector<std::shared_ptr<Graph>>{};
    for (size_t b = 0; b < bodies.size(); ++b) {
      GraphEdit inner(*bodies[b]);
      static const Graph kNothing;
      changed |= fold_graph(inner, b < known.size() ? *known[b] : kNothing, &scope, limits);
      edit.log().nodes_removed += inner.log().nodes_removed;
      edit.log().constants_added += inner.log().constants_added;
    }
  }
  return changed;
}

/// Values computed from shapes whose every element is a known number become constants.
bool fold_numbers(GraphEdit& edit, ShapeValues& shapes, const Node& n) {
  if (n.outputs.size() != 1 || n.outputs[0] == kNone || !n.bodies().empty()) return false;
  const ValueId y = n.outputs[0];
  if (edit.graph().value(y).uses.empty() || edit.graph().is_output(y)) return false;
  const Elements* e = shapes.elements(y);
  const auto* dims = shapes.dims(y);
  if (!e || !dims || dims->size() > 1 || !std::all_of(e->begin(), e->end(), [](const Element& x) { return x.number.has_value(); })) return false;
  if (dims->empty() ? e->size() != 1 : (*dims)[0].size != static_cast<int64_t>(e->size())) return false;
  std::vector<int64_t> numbers;
  for (const Element& x : *e) numbers.push_back(*x.number);
  Tensor t = Tensor::vector(numbers);
  if (dims->empty()) t = t.reshaped({});
  const ValueId made = edit.add_constant(cast(t, shapes.dtype(y)));
  replace_and_remove(edit, y, made);
  return true;
}

/// The target with which a Reshape needs no computed one; empty where there is none.
std::optional<std::vector<int64_t>> open_target(const Node& n, const Elements& wanted, const std::vector<Dim>* from) {
  const bool zero_copies = n.i("allowzero", 0) == 0;
  std::vector<int64_t> target;
  int64_t open = 0;
  bool zeros = false;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const Element& e = wanted[i];
    const bool own = zero_copies && !e.symbol.empty() && from && i < from->size() && (*from)[i].symbol == e.symbol;
    zeros |= e.number == 0;
    open += own || (e.number && *e.number != -1) ? 0 : 1;
    target.push_back(own ? 0 : e.number ? *e.number : -1);
  }
  return open <= 1 && !(open && zeros) ? std::optional(std::move(target)) : std::nullopt;
}

/// The last dimension that a value must have, or a product with constant weights would fail; -1 where none tells.
int64_t demanded_last(const Graph& graph, ValueId v) {
  for (const Use& use : graph.value(v).uses) {
    if (use.index != 0 || !graph.node(use.node).is("MatMul")) continue;
    const Tensor* w = graph.constant(graph.node(use.node).input(1));
    if (w && w->rank() >= 2) return w->dim(-2);
  }
  return -1;
}

bool fix_reshape(GraphEdit& edit, ShapeValues& shapes, const Node& n) {
  const ValueId computed = n.input(1);
  if (!n.is("Reshape") || computed == kNone || edit.graph().constant(computed)) return false;
  const Elements* wanted = shapes.elements(computed);
  if (!wanted || wanted->empty()) return false;
  auto target = open_target(n, *wanted, shapes.dims(n.input(0)));
  if (const int64_t last = demanded_last(edit.graph(), n.outputs[0]); !target && wanted->back().number == -1 && last > 0) {
    Elements settled = *wanted;
    settled.back().number = last;
    target = open_target(n, settled, shapes.dims(n.input(0)));
  }
  if (!target) return false;
  edit.set_input(n.id, 1, edit.add_constant(Tensor::vector(*target)));
  remove_unused(edit, computed);
  return true;
}

/// An Expand to the shape that its input has already.
bool drop_expand(GraphEdit& edit, ShapeValues& shapes, const Node& n) {
  const Elements* wanted = n.is("Expand") ? shapes.elements(n.input(1)) : nullptr;
  const auto* from = shapes.dims(n.input(0));
  if (n.input(0) == kNone || !wanted || !from || wanted->size() > from->size()) return false;
  for (size_t i = 1; i <= wanted->size(); ++i) {
    const Element& e = (*wanted)[wanted->size() - i];
    const Dim& d = (*from)[from->size() - i];
    const bool same = (e.number && (*e.number == 1 || *e.number == d.size)) || (!e.symbol.empty() && e.symbol == d.symbol);
    if (!same) return false;
  }
  if (!edit.replaceable(n.outputs[0], n.input(0))) return false;
  replace_and_remove(edit, n.outputs[0], n.input(0));
  return true;
}

bool fold_shapes(GraphEdit& edit, const Graph& inferred) {
  ShapeValues shapes(edit.graph(), inferred);
  bool changed = false;
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order) {
    if (!edit.graph().alive(id) || !edit.graph().node(id).domain.empty() || output_of(edit.graph().node(id)) == kNone) continue;
    const Node& n = edit.graph().node(id);
    changed |= fold_numbers(edit, shapes, n) || fix_reshape(edit, shapes, n) || drop_expand(edit, shapes, n);
  }
  return changed;
}

/// What was found is told where nothing was known: later passes ask for ranks and sizes.
void tell_types(GraphEdit& edit, const Graph& inferred) {
  for (size_t i = 0; i < inferred.value_capacity(); ++i) {
    const auto v = static_cast<ValueId>(i);
    if (!inferred.value_alive(v) || !edit.graph().value_alive(v) || edit.graph().value(v).constant.defined()) continue;
    Type known = edit.graph().value(v).type;
    const Type& found = inferred.value(v).type;
    if (found.dtype == DType::Undefined || !known.opaque.empty() || (known.dtype != DType::Undefined && known.dtype != found.dtype)) continue;
    if (!known.has_shape || known.shape.size() != found.shape.size() || !found.has_shape) {
      if (known.dtype != DType::Undefined && (known.has_shape || !found.has_shape)) continue;
      known = found;
      for (Dim& d : known.shape) d.symbol.clear();
    }
    for (size_t a = 0; a < known.shape.size(); ++a)
      if (known.shape[a].size < 0) known.shape[a].size = found.shape[a].size;
    edit.set_type(v, std::move(known));
  }
}

size_t constant_bytes(const Graph& graph) {
  size_t bytes = 0;
  for (size_t i = 0; i < graph.value_capacity(); ++i)
    if (const auto id = static_cast<ValueId>(i); graph.value_alive(id)) bytes += graph.value(id).constant.defined() ? graph.value(id).constant.bytes() : 0;
  return bytes;
}

void run(GraphEdit& edit, PassContext& context, const Options& options) {
  size_t growth = std::max(kSmallGrowth, static_cast<size_t>(std::min(options.number("max_growth") * static_cast<double>(constant_bytes(edit.graph())), 1e18)));
  const Limits limits{static_cast<size_t>(options.integer("max_bytes")), options.text("half_weights") == "keep", growth};
  edit.finish();
  fold_graph(edit, Graph(), nullptr, limits);  // what needs no shapes, so that the first inference sees its constants
  for (int round = 0; round < kRounds; ++round) {
    edit.finish();
    const std::shared_ptr<Graph> inferred = infer_afresh(context.model, edit.graph());
    bool changed = fold_graph(edit, *inferred, nullptr, limits);
    changed |= fold_shapes(edit, *inferred);
    tell_types(edit, *inferred);
    if (!changed) break;
  }
}

}  // namespace

PassDef pass_fold_constants() {
  return {"fold_constants", "computes what depends on constants and known shapes only", Contract::Rounding,
          {{"max_bytes", "largest constant that may be made, unless it replaces larger ones", int64_t{1} << 20, {}, 0.0},
           {"max_growth", "share of the constants' bytes by which transposed copies may make the file larger (64 KiB in any case)", 0.02, {}, 0.0},
           {"half_weights", "large float16 and bfloat16 weights behind a Cast: kept as they are stored, or decoded", std::string("keep"), {"keep", "decode"}}},
          false, 0, run};
}

}  // namespace infopt
