#include "passes/support/groups.h"

#include <algorithm>
#include <array>

#include "passes/support/layers.h"

namespace infopt {
namespace {

bool one_of(const Node& n, const auto& names) {
  return n.domain.empty() && std::any_of(names.begin(), names.end(), [&](const char* name) { return n.op == name; });
}

constexpr std::array kNormalizations{"LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization", "LpNormalization", "MeanVarianceNormalization"};
/// What lies between a projection and the product of scores: moves, biases, scales, rotary embeddings.
constexpr std::array kGlue{"Reshape", "Transpose", "Add", "Mul", "Div", "Sub", "Split", "Slice", "Concat", "Neg", "Squeeze", "Unsqueeze", "Cast", "Identity", "Expand", "QuantizeLinear", "DequantizeLinear", "Softmax", "Where", "Sqrt"};

bool multiplies_activations(const Graph& graph, const Node& n) {
  return n.is("Attention") || (n.is("MatMul") && !graph.constant(n.input(0)) && !graph.constant(n.input(1)) && !layer_of(graph, n.id));
}

bool is_product(const Graph& graph, NodeId id) {
  const auto layer = layer_of(graph, id);
  return layer && !layer->convolution;
}

/// Marks the weighted products that are reached from a product of activations over glue only, up or down the graph.
class Spread {
 public:
  Spread(const Graph& graph, std::vector<std::string>& roles) : graph_(graph), roles_(roles) {}
  void up(const Node& n) {
    for (ValueId v : n.inputs)
      if (const Node* p = graph_.producer(v)) reach(*p, true);
  }
  void down(const Node& n) {
    for (ValueId v : n.outputs)
      if (v != kNone)
        for (const Use& u : graph_.value(v).uses)
          if (u.index >= 0) reach(graph_.node(u.node), false);
  }

 private:
  void reach(const Node& n, bool upwards) {
    if (is_product(graph_, n.id)) {
      roles_[static_cast<size_t>(n.id)] = "attention";
      return;
    }
    // A residual Add joins two branches: what lies beyond it is no part of the attention.
    const bool residual = n.is("Add") && !graph_.constant(n.input(0)) && !graph_.constant(n.input(1)) && !upwards;
    if (!one_of(n, kGlue) || residual || ++steps_ > 400) return;
    upwards ? up(n) : down(n);
  }
  const Graph& graph_;
  std::vector<std::string>& roles_;
  int steps_ = 0;
};

bool fits(const GroupRule& rule, const Graph& graph, const Node& n, const std::string& role, double depth) {
  auto any = [](const std::vector<std::string>& list, auto test) { return list.empty() || std::any_of(list.begin(), list.end(), test); };
  const bool named = any(rule.nodes, [&](const std::string& pattern) {
    if (matches_glob(pattern, n.name)) return true;
    return std::any_of(n.inputs.begin(), n.inputs.end(), [&](ValueId v) { return graph.constant(v) && matches_glob(pattern, graph.value(v).name); });
  });
  return named && any(rule.ops, [&](const std::string& op) { return n.op == op; }) && any(rule.roles, [&](const std::string& r) { return r == role; }) &&
         (!rule.depth_from || depth >= *rule.depth_from) && (!rule.depth_to || depth <= *rule.depth_to);
}

}  // namespace

std::vector<std::string> node_roles(const Graph& graph) {
  std::vector<std::string> roles(graph.node_capacity());
  NodeId last = kNone;
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    std::string& role = roles[static_cast<size_t>(id)];
    if (n.is("Conv") || n.is("ConvTranspose")) role = "convolution";
    else if (one_of(n, kNormalizations)) role = "normalization";
    else if (n.is("Gather") && graph.constant(n.input(0)) && graph.constant(n.input(0))->rank() == 2 && is_float(graph.constant(n.input(0))->dtype())) role = "embedding";
    else if (is_product(graph, id)) role = "ffn", last = id;
  }
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    if (!multiplies_activations(graph, n)) continue;
    roles[static_cast<size_t>(id)] = "attention";
    Spread(graph, roles).up(n);
    Spread(graph, roles).down(n);
  }
  if (last != kNone && roles[static_cast<size_t>(last)] == "ffn") roles[static_cast<size_t>(last)] = "head";
  return roles;
}

std::vector<const GroupRule*> assign_groups(const Graph& graph, const std::vector<GroupRule>& rules) {
  std::vector<const GroupRule*> out(graph.node_capacity(), nullptr);
  if (rules.empty()) return out;
  const std::vector<std::string> roles = node_roles(graph);
  std::vector<NodeId> weighted;
  for (NodeId id : graph.order())
    if (!roles[static_cast<size_t>(id)].empty()) weighted.push_back(id);
  double place = 0;
  for (NodeId id : graph.order()) {
    const double depth = weighted.size() > 1 ? std::min(1.0, place / static_cast<double>(weighted.size() - 1)) : 0;
    for (const GroupRule& rule : rules)
      if (fits(rule, graph, graph.node(id), roles[static_cast<size_t>(id)], depth)) {
        out[static_cast<size_t>(id)] = &rule;
        break;
      }
    if (!roles[static_cast<size_t>(id)].empty()) ++place;
  }
  return out;
}

bool matches_glob(const std::string& pattern, const std::string& text) {
  size_t p = 0, t = 0, star = std::string::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) ++p, ++t;
    else if (p < pattern.size() && pattern[p] == '*') star = p++, resume = t;
    else if (star != std::string::npos) p = star + 1, t = ++resume;
    else return false;
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace infopt
