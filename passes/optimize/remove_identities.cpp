// remove_identities
//
// before     x ─ op ─ y, where op gives out what it gets
// after      y's readers read x
// conditions Identity; Dropout in inference; Cast to x's own type; Transpose by the identity; Reshape, Expand, Flatten, Squeeze and
//            Unsqueeze to x's own static shape; Pad by zeros; Slice of everything; Concat, Sum, Max, Min and Mean of one;
//            x + 0, x − 0, x·1, x/1, x^1 where the constant doesn't widen x's shape; −(−x); Unsqueeze then Squeeze of the same axes;
//            a Loop's or Scan's state that the body hands back as it got it: the body then reads the value from around it.
//            Where y is the model's output and x its input (or a constant, or an output), an Identity stays.
// formula    x + 0 = x but for −0 + 0 = +0: equal as numbers, and so are the outputs.
#include <algorithm>
#include <limits>
#include <numeric>

#include "passes/pass.h"
#include "passes/support/loop_state.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

bool all_equal(const std::vector<int64_t>& v, int64_t to) {
  return std::all_of(v.begin(), v.end(), [&](int64_t x) { return x == to; });
}

std::vector<int64_t> attribute_or_input(const Graph& g, const Node& n, const char* attribute, size_t index, bool& known) {
  if (const auto* a = n.get<std::vector<int64_t>>(attribute)) return *a;
  const Tensor* t = g.constant(n.input(index));
  if (!t) known = false;
  return t ? to_vector<int64_t>(*t) : std::vector<int64_t>{};
}

bool keeps_static_shape(const Graph& g, const Node& n) {
  if (n.outputs.empty() || n.outputs[0] == kNone || n.input(0) == kNone) return false;
  const auto x = g.value(n.input(0)).type.fixed_shape(), y = g.value(n.outputs[0]).type.fixed_shape();
  return x && y && *x == *y;
}

/// A Reshape whose target says the input's own dimensions, all but one of them known: [0, 0, 64], [-1, 3, 8] of [batch, 3, 8].
bool reshapes_to_itself(const Graph& g, const Node& n) {
  if (keeps_static_shape(g, n)) return true;
  const Tensor* target = g.constant(n.input(1));
  const Type& x = g.value(n.input(0)).type;
  if (!target || !x.has_shape || target->size() != static_cast<int64_t>(x.shape.size())) return false;
  const std::vector<int64_t> to = to_vector<int64_t>(*target);
  int64_t open = 0;
  for (size_t i = 0; i < to.size(); ++i) {
    if (to[i] == 0 && n.i("allowzero", 0) == 0) continue;
    if (to[i] == -1) ++open;
    else if (to[i] != x.shape[i].size) return false;
  }
  return open <= 1;
}

bool slices_everything(const Graph& g, const Node& n) {
  bool known = true;
  const std::vector<int64_t> starts = attribute_or_input(g, n, "starts", 1, known), ends = attribute_or_input(g, n, "ends", 2, known);
  if (!known || !all_equal(starts, 0)) return false;
  bool stepped = true;
  if (n.input(4) != kNone && !all_equal(attribute_or_input(g, n, "steps", 4, stepped), 1)) return false;
  if (!stepped) return false;
  if (all_equal(ends, std::numeric_limits<int64_t>::max())) return true;
  return keeps_static_shape(g, n);
}

bool identity_transpose(const Graph& g, const Node& n) {
  const std::vector<int64_t> perm = n.ints("perm");
  if (perm.empty()) {
    const int64_t rank = rank_of(g, n.input(0));
    return rank == 0 || rank == 1;
  }
  return std::is_sorted(perm.begin(), perm.end());
}

bool pads_nothing(const Graph& g, const Node& n) {
  bool known = true;
  const std::vector<int64_t> pads = attribute_or_input(g, n, n.find("paddings") ? "paddings" : "pads", 1, known);
  return known && all_equal(pads, 0);
}

/// The operand that an elementwise operation with a neutral constant gives out; kNone where it isn't one.
ValueId past_neutral(const Graph& g, const Node& n) {
  const bool add = n.is("Add"), mul = n.is("Mul"), sub = n.is("Sub"), div = n.is("Div"), pow = n.is("Pow");
  if (!add && !mul && !sub && !div && !pow) return kNone;
  const double neutral = add || sub ? 0 : 1;
  for (size_t side : {size_t{1}, size_t{0}}) {
    if (side == 0 && !add && !mul) break;
    const ValueId x = n.input(1 - side), c = n.input(side);
    if (x == kNone || c == kNone || splat(g, c) != neutral) continue;
    const Tensor& t = *g.constant(c);
    if (keeps_shape(g, x, t.shape())) return x;
  }
  return kNone;
}

bool dropout_in_inference(const Graph& g, const Node& n) {
  if (n.outputs.size() > 1 && n.outputs[1] != kNone && !g.value(n.outputs[1]).uses.empty()) return false;
  if (n.i("is_test", 1) == 0) return false;
  const ValueId mode = n.input(2);
  if (mode == kNone) return true;
  const Tensor* t = g.constant(mode);
  return t && t->size() == 1 && to_scalar<int64_t>(*t) == 0;
}

/// The value that `n` gives out unchanged; kNone where it changes something.
ValueId passed_on(const Graph& g, const Node& n) {
  if (!n.domain.empty() || n.inputs.empty() || n.input(0) == kNone || n.outputs.empty() || n.outputs[0] == kNone) return kNone;
  const ValueId x = n.input(0);
  bool same = n.op == "Identity";
  if (n.op == "Dropout") same = dropout_in_inference(g, n);
  if (n.op == "Cast") same = dtype_of_value(g, x) != DType::Undefined && static_cast<int64_t>(dtype_of_value(g, x)) == n.i("to", 0);
  if (n.op == "Transpose") same = identity_transpose(g, n);
  if (n.op == "Reshape") same = reshapes_to_itself(g, n);
  if (n.op == "Expand" || n.op == "Flatten" || n.op == "Squeeze" || n.op == "Unsqueeze") same = keeps_static_shape(g, n);
  if (n.op == "Pad") same = pads_nothing(g, n);
  if (n.op == "Slice") same = slices_everything(g, n);
  if (n.op == "Concat" || n.op == "Sum" || n.op == "Max" || n.op == "Min" || n.op == "Mean") same = n.inputs.size() == 1;
  if (same) return x;
  if (n.op == "Neg")
    if (const Node* before = made_by(g, x, "Neg")) return before->input(0);
  if (n.op == "Squeeze")
    if (const Node* before = made_by(g, x, "Unsqueeze")) {
      const auto out = axes_of(g, n, 1), in = axes_of(g, *before, 1);
      if (out && in && !in->empty() && *out == *in) return before->input(0);
    }
  return past_neutral(g, n);
}

void remove(GraphEdit& edit) {
  const std::vector<NodeId> order = edit.graph().order();
  for (NodeId id : order) {
    if (!edit.graph().alive(id)) continue;
    const ValueId to = passed_on(edit.graph(), edit.graph().node(id));
    if (to == kNone) continue;
    const ValueId from = edit.graph().node(id).outputs[0];
    if (edit.replaceable(from, to)) {
      replace_and_remove(edit, from, to);
      continue;
    }
    // The interface needs a node here: it becomes an Identity, and whoever else read it reads past it.
    const std::vector<Use> uses = edit.graph().value(from).uses;
    for (const Use& use : uses)
      if (use.index >= 0) edit.set_input(use.node, static_cast<size_t>(use.index), to);
    const Node& n = edit.graph().node(id);
    if (n.op != "Identity" && n.outputs.size() == 1) {
      while (!edit.graph().node(id).attributes.empty()) edit.remove_attribute(id, std::string(edit.graph().node(id).attributes[0].name));
      edit.set_op(id, "Identity");
      edit.set_inputs(id, {to});
    }
  }
}

void run(GraphEdit& edit, PassContext&, const Options&) {
  each_graph(edit, remove);
  each_graph(edit, hoist_constant_state);
}

}  // namespace

PassDef pass_remove_identities() {
  return {"remove_identities", "removes operators that give out what they get", Contract::Exact, {}, false, 0, run};
}

}  // namespace infopt
