// fold_constants
//
// before     y = f(c1, c2, …) with constants only; n = Shape(x) where x's shape is known; If(true) { then } else { else }
// after      y an initializer with what f gives on the CPU; n the same; the branch's nodes in If's place
// conditions f is deterministic, has no body, and infopt can run it. y is no graph output. y takes at most max_bytes, or no more than those
//            of its inputs that nobody else reads. Never decoded: DequantizeLinear of constants, integers of 8 bits or fewer cast to
//            floats (storage form), and float16 or bfloat16 weights cast to something wider (as they were stored to save bytes).
//            Shapes are trusted where the operators' inference gives them, not where the file only declares them.
// formula    –
#include <algorithm>
#include <array>
#include <unordered_map>

#include "lib/base/error.h"
#include "lib/onnx/infer.h"
#include "lib/ops/op.h"
#include "lib/runtime/session.h"
#include "passes/pass.h"
#include "passes/support/inline_body.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

/// Half-stored tensors up to this size are decoded: scales, biases.
constexpr int64_t kSmall = 1024;
constexpr int kRounds = 8;

constexpr std::array kRandom{"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"};

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

bool random(const Node& n, int64_t opset) {
  if (std::any_of(kRandom.begin(), kRandom.end(), [&](const char* op) { return n.is(op); })) return true;
  if (n.is("Dropout") && n.input(2) != kNone) return true;
  const OpDef* op = find_op(n.domain, n.op, opset);
  return op && op->nondeterministic;
}

/// Folding would store in full what the file stores in fewer bits.
bool decodes(const Scope& scope, const Node& n) {
  if (n.is("DequantizeLinear") || n.domain == "com.microsoft") return true;
  if (!n.is("Cast") && !n.is("CastLike")) return false;
  const Tensor* x = constant_of(scope, n.input(0));
  const auto to = static_cast<DType>(n.i("to", 0));
  if (!x || x->dtype() == DType::Bool || x->dtype() == DType::String) return false;
  const size_t bits = bits_of(x->dtype());
  if (is_integer(x->dtype())) return bits <= 8 && x->size() > 1 && (n.is("CastLike") || is_float(to));
  return is_float(x->dtype()) && bits <= 16 && x->size() > kSmall && (n.is("CastLike") || bits_of(to) > bits);
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

class Folder {
 public:
  Folder(GraphEdit& edit, Scope scope, size_t max_bytes) : edit_(edit), scope_(scope), max_bytes_(max_bytes) {}

  bool run() {
    bool changed = false;
    const std::vector<NodeId> order = edit_.graph().order();
    for (NodeId id : order) {
      if (!edit_.graph().alive(id)) continue;
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
    if (random(n, graph().opset(n.domain)) || decodes(scope_, n)) return false;
    const size_t limit = std::max(max_bytes_, freed(scope_, n));
    if (surely_larger(n, limit)) return false;
    std::vector<Tensor> results = evaluate(n);
    size_t bytes = 0;
    for (const Tensor& t : results) bytes += t.bytes();
    return !results.empty() && bytes <= limit && put(id, std::move(results));
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
    if (!condition || condition->size() != 1) return false;
    const auto* branch = n.get<std::shared_ptr<Graph>>(to_scalar<int64_t>(*condition) != 0 ? "then_branch" : "else_branch");
    if (!branch || !*branch) return false;
    edit_.note("'" + graph().label(id) + "' always takes one branch");
    const std::shared_ptr<Graph> body = *branch;  // outlives the node
    inline_body(edit_, id, *body, {});
    return true;
  }

  GraphEdit& edit_;
  Scope scope_;
  size_t max_bytes_;
};

bool fold_graph(GraphEdit& edit, const Graph& inferred, const Scope* parent, size_t max_bytes) {
  const Scope scope{edit.graph(), inferred, parent};
  bool changed = Folder(edit, scope, max_bytes).run();
  edit.finish();
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order) {
    const auto bodies = edit.graph().node(id).bodies();
    if (bodies.empty()) continue;
    const auto known = inferred.alive(id) && inferred.node(id).op == edit.graph().node(id).op ? inferred.node(id).bodies() : std::vector<std::shared_ptr<Graph>>{};
    for (size_t b = 0; b < bodies.size(); ++b) {
      GraphEdit inner(*bodies[b]);
      static const Graph kNothing;
      changed |= fold_graph(inner, b < known.size() ? *known[b] : kNothing, &scope, max_bytes);
      edit.log().nodes_removed += inner.log().nodes_removed;
      edit.log().constants_added += inner.log().constants_added;
    }
  }
  return changed;
}

void run(GraphEdit& edit, PassContext& context, const Options& options) {
  const auto max_bytes = static_cast<size_t>(options.integer("max_bytes"));
  for (int round = 0; round < kRounds; ++round) {
    edit.finish();
    Model inferred = context.model;
    inferred.graph = edit.graph().clone();
    infer_types(inferred, true);
    if (!fold_graph(edit, *inferred.graph, nullptr, max_bytes)) break;
  }
  edit.finish();
  infer_types(context.model);
}

}  // namespace

PassDef pass_fold_constants() {
  return {"fold_constants", "computes what depends on constants and known shapes only", Contract::Rounding,
          {{"max_bytes", "largest constant that may be made, unless it replaces larger ones", int64_t{1} << 20, {}, 0.0}}, false, 0, run};
}

}  // namespace infopt
