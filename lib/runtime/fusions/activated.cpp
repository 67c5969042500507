#include "lib/runtime/fusions/activated.h"

#include <algorithm>
#include <cmath>

#include "lib/runtime/fusions/value_facts.h"

namespace infopt {
namespace {

/// The constant is b, as near as its type can say.
bool near(PlanView& view, ValueId constant, double b) {
  const std::optional<float> a = scalar_constant(view, constant);
  if (!a) return false;
  const DType type = view.constant(constant)->dtype();
  const double unit = type == DType::F16 ? 1e-3 : type == DType::BF16 ? 8e-3 : 1e-6;
  return std::fabs(*a - b) < unit * std::fabs(b);
}

/// The values that are multiplied with one another, through Muls that nobody else reads.
void collect_factors(PlanView& view, const Node& mul, std::vector<ValueId>& factors, std::vector<const Node*>& covers) {
  for (ValueId v : mul.inputs) {
    const Node* node = view.only_for_one(v);
    if (is_binary(node, "Mul") && !view.constant(v) && covers.size() < 3) {
      covers.push_back(node);
      collect_factors(view, *node, factors, covers);
    } else {
      factors.push_back(v);
    }
  }
}

/// 0.5·x·(1 + erf(x/√2)), multiplied in any order.
std::optional<Activated> gelu_of_pieces(PlanView& view, const Node& node) {
  if (!is_binary(&node, "Mul")) return std::nullopt;
  Activated a;
  a.post.kind = PostActivation::Gelu;
  std::vector<ValueId> factors;
  collect_factors(view, node, factors, a.covers);
  if (factors.size() != 3) return std::nullopt;
  const Node *add = nullptr, *erf = nullptr;
  bool half = false;
  for (ValueId v : factors) {
    const std::optional<float> constant = scalar_constant(view, v);
    const Node* maker = view.only_for_one(v);
    if (constant && *constant == 0.5f) half = true;
    else if (is_binary(maker, "Add") && !add) add = maker;
    else a.x = v;
  }
  if (!half || !add || a.x == kNone) return std::nullopt;
  for (size_t i : {0u, 1u})
    if (scalar_constant(view, add->input(i)) == 1.0f) erf = view.only_for_one(add->input(1 - i));
  if (!erf || !erf->is("Erf")) return std::nullopt;
  const Node* scaled = view.only_for_one(erf->input(0));
  if (!is_binary(scaled, "Div") && !is_binary(scaled, "Mul")) return std::nullopt;
  const bool div = scaled->is("Div");
  const size_t at = scaled->input(0) == a.x ? 0 : 1;
  if (scaled->input(at) != a.x || (div && at == 1) || !near(view, scaled->input(1 - at), div ? std::sqrt(2.0) : std::sqrt(0.5))) return std::nullopt;
  a.covers.insert(a.covers.end(), {add, erf, scaled});
  return a;
}

}  // namespace

bool only_inside(PlanView& view, const Activated& a, const Node& last) {
  if (a.x == kNone || !view.hidden(a.x)) return false;
  const auto& uses = view.graph().value(a.x).uses;
  return std::all_of(uses.begin(), uses.end(), [&](const Use& u) {
    return u.node == last.id || std::any_of(a.covers.begin(), a.covers.end(), [&](const Node* n) { return n->id == u.node; });
  });
}

std::optional<Activated> activation_of(PlanView& view, const Node& node) {
  Activated a;
  if (as_bounds(view, node, a.post)) {
    a.x = node.input(0);
    return a;
  }
  if (node.is("Gelu")) {
    const std::string approximate = node.s("approximate", "none");
    if (approximate != "none" && approximate != "tanh") return std::nullopt;
    a.x = node.input(0);
    a.post.kind = approximate == "tanh" ? PostActivation::GeluTanh : PostActivation::Gelu;
    return a;
  }
  if (is_binary(&node, "Mul"))
    for (size_t i : {0u, 1u})
      if (const Node* sigmoid = view.only_for_one(node.input(i)); sigmoid && sigmoid->is("Sigmoid") && sigmoid->input(0) == node.input(1 - i)) {
        a.x = node.input(1 - i);
        a.post.kind = PostActivation::Silu;
        a.covers = {sigmoid};
        return a;
      }
  return gelu_of_pieces(view, node);
}

}  // namespace infopt
