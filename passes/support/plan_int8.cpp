#include "passes/support/plan_int8.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "lib/base/threads.h"
#include "passes/support/body_weights.h"
#include "passes/support/captured_weights.h"
#include "passes/support/equalize.h"
#include "passes/support/groups.h"
#include "passes/support/quantize_weights.h"
#include "passes/support/tied.h"

namespace infopt {
namespace {

constexpr double kMargin = 1.1;
constexpr double kWorthwhile = 0.92;  ///< of float's estimated time; above it integers aren't worth their error

/// What a group or the step's options say about a node.
struct Wish {
  bool weights = true, activations = true;  ///< integers allowed
  std::string form;                         ///< static, dynamic, storage, float; empty: free
  const GroupRule* rule = nullptr;
};

class Planner {
 public:
  Planner(const Graph& graph, PassContext& context, const Options& options) : graph_(graph), context_(context), options_(options), groups_(assign_groups(graph, context.groups)) {}

  Int8Plan plan() {
    plan_.seen = context_.calibration->observe(graph_);
    choose_static();
    choose_forms();
    choose_widths();
    choose_tables();
    warn_of_obstacles();
    collect_statistics();
    judge_products();
    return std::move(plan_);
  }

 private:
  Wish wish(NodeId id) const;
  void choose_static();
  void choose_forms();
  void choose_widths();
  LayerForm form_of(const Layer& layer, const Wish& wish, const NodeCost& cost, std::string& reason) const;
  bool converts_dynamic(const Layer& layer) const;
  void choose_tables();
  std::optional<size_t> tied_layer(ValueId table) const;
  void warn_of_obstacles();
  void collect_statistics();
  void judge_products();
  std::vector<double> judge_group(ValueId input, std::vector<LayerPlan*>& products);
  double signal_of(const Layer& layer) const;
  LayerReport& report(const LayerPlan& p) { return plan_.reports[p.report]; }
  bool stores(int64_t elements) const { return options_.flag("storage") && elements >= options_.integer("min_weights"); }

  const Graph& graph_;
  PassContext& context_;
  const Options& options_;
  std::vector<const GroupRule*> groups_;
  Int8Plan plan_;
};

Wish Planner::wish(NodeId id) const {
  Wish w;
  w.form = options_.text("activations") == "auto" ? "" : options_.text("activations") == "none" ? "storage" : options_.text("activations");
  const GroupRule* rule = groups_[static_cast<size_t>(id)];
  if (!rule) return w;
  w.rule = rule;
  w.weights = rule->weights.empty() || rule->weights == "int8";
  w.activations = rule->activations.empty() || rule->activations == "int8" || wide_type(rule->activations) != DType::Undefined;
  if (!rule->form.empty() && rule->form != "auto") w.form = rule->form;
  return w;
}

void Planner::choose_static() {
  const CostModel costs(graph_, plan_.seen, context_.profile);
  std::vector<bool> keep_float(graph_.node_capacity()), keep_integer(graph_.node_capacity());
  bool forced = false;
  for (NodeId id : graph_.order()) {
    const Wish w = wish(id);
    const bool free = w.weights && w.activations && (w.form.empty() || w.form == "static");
    keep_float[static_cast<size_t>(id)] = !free;
    keep_integer[static_cast<size_t>(id)] = free && w.form == "static" && layer_of(graph_, id).has_value();
    forced = forced || keep_integer[static_cast<size_t>(id)];
  }
  plan_.regions = choose_regions(graph_, plan_.seen, costs, keep_float, keep_integer);
  plan_.keep_float = std::move(keep_float), plan_.keep_integer = std::move(keep_integer);
  if (context_.profile.weigh_cost && !forced && plan_.regions.mixed_ns > kWorthwhile * plan_.regions.float_ns) plan_.regions.integer.assign(graph_.node_capacity(), false);
}

LayerForm Planner::form_of(const Layer& layer, const Wish& w, const NodeCost& cost, std::string& reason) const {
  const int64_t elements = layer.out * layer.in * layer.taps;
  if (plan_.regions.is_integer(layer.node)) {
    reason = w.form == "static" ? "asked for" : "its integer kernel gains";
    return LayerForm::Int8Static;
  }
  if (!w.weights) {
    reason = "group " + w.rule->name + " keeps its weights in " + w.rule->weights;
    return LayerForm::Float32;
  }
  const bool computed = plan_.seen[static_cast<size_t>(graph_.node(layer.node).input(0))].dtype != DType::Undefined;
  const bool narrow = !w.rule || wide_type(w.rule->activations) == DType::Undefined;
  const bool dynamic_allowed = computed && w.activations && narrow && (w.form.empty() || w.form == "dynamic") && cost.dynamic.has_value();
  if (computed && w.activations && narrow && w.form == "dynamic" && converts_dynamic(layer) && elements >= options_.integer("min_weights")) {
    reason = "asked for";
    return LayerForm::Int8Dynamic;
  }
  if (dynamic_allowed && (w.form == "dynamic" || *cost.dynamic * kMargin < cost.in_float) && elements >= options_.integer("min_weights")) {
    reason = w.form == "dynamic" ? "asked for" : "its integer kernel gains; ranges at run time lose less";
    return LayerForm::Int8Dynamic;
  }
  if (w.form == "float") reason = "asked for";
  else if (!w.activations) reason = "group " + w.rule->name + " keeps its activations in " + w.rule->activations;
  else if (w.form == "storage") reason = "asked for";
  else if (!computed) reason = "its input can't be calibrated: it lies behind what infopt can't run";
  else if (!cost.in_integer && !cost.dynamic) reason = "the target has no integer kernel for it";
  else reason = "its float kernel is as fast on the target, the way into integers counted";
  if (w.form != "float" && context_.profile.storage_form && stores(elements)) return LayerForm::Int8Storage;
  if (elements < options_.integer("min_weights")) reason += "; too few weights to store as int8";
  return LayerForm::Float32;
}

/// Whether the layer can become a ConvInteger and shall: where it gains isn't known to the cost model, so that it is only done when asked for.
bool Planner::converts_dynamic(const Layer& layer) const {
  return layer.convolution && !layer.transposed && options_.flag("dynamic_convolutions") && context_.profile.dynamic_products &&
         plan_.seen[static_cast<size_t>(graph_.node(layer.node).input(0))].dtype == DType::F32;
}

void Planner::choose_forms() {
  const CostModel costs(graph_, plan_.seen, context_.profile);
  for (NodeId id : graph_.order()) {
    const Node& n = graph_.node(id);
    const auto layer = layer_of(graph_, id);
    auto r = product_report(graph_, n, layer, plan_.seen);
    if (!r) continue;
    if (layer) {
      r->form = form_of(*layer, wish(id), costs.node(n), r->reason);
      plan_.layers.push_back({*layer, r->form, plan_.reports.size()});
    }
    plan_.reports.push_back(std::move(*r));
  }
}

void Planner::warn_of_obstacles() {
  const auto& obstacles = context_.calibration->obstacles();
  if (obstacles.empty()) return;
  size_t behind = 0;
  for (const LayerPlan& p : plan_.layers) behind += plan_.seen[static_cast<size_t>(graph_.node(p.layer.node).input(0))].dtype == DType::Undefined;
  const std::string count = behind == plan_.layers.size() && behind > 0 ? "nothing could be calibrated: all " : "";
  context_.report.warnings.push_back(listed(obstacles) + "; " + count + std::to_string(behind) + " of " + std::to_string(plan_.layers.size()) +
                                     " layers lie behind, whose weights alone may become int8");
}

/// What 16-bit codes are asked for: by the option for all, by a group for what its nodes read.
void Planner::choose_widths() {
  const DType all = wide_type(options_.text("activation_type"));
  for (NodeId id : graph_.order()) {
    if (!plan_.regions.is_integer(id)) continue;
    const Node& n = graph_.node(id);
    const GroupRule* rule = groups_[static_cast<size_t>(id)];
    const DType type = rule && !rule->activations.empty() ? wide_type(rule->activations) : all;
    if (type == DType::Undefined) continue;
    for (ValueId v : data_inputs(graph_, n, plan_.seen)) plan_.wide.emplace(v, type);
    if (all == DType::Undefined) continue;
    const Node* activation = absorbed_activation(graph_, n);  // and what it gives out, where nothing in integers reads that
    plan_.wide.emplace(activation ? activation->outputs[0] : n.outputs[0], all);
  }
  for (const LayerPlan& p : plan_.layers)
    if (p.form == LayerForm::Int8Static && plan_.wide.contains(graph_.node(p.layer.node).input(0))) report(p).reason += "; activations of 16 bits";
}

std::optional<size_t> Planner::tied_layer(ValueId table) const {
  for (size_t i = 0; i < plan_.layers.size(); ++i)
    if (reads_table(graph_, plan_.layers[i].layer, table)) return i;
  return std::nullopt;
}

void Planner::choose_tables() {
  for (NodeId id : graph_.order()) {
    const Node& n = graph_.node(id);
    const Wish w = wish(id);
    if (!w.weights || w.form == "float" || !options_.flag("storage")) continue;
    if (n.is("Gather") && options_.text("embeddings") == "storage") {
      const Tensor* table = graph_.constant(n.input(0));
      if (table && table->dtype() == DType::F32 && table->rank() == 2 && n.i("axis", 0) == 0 && stores(table->size()) && !graph_.constant(n.input(1)))
        plan_.embeddings.push_back({id, n.input(0), tied_layer(n.input(0))});
    }
    for (const auto& [weights, axis] : captured_weights(graph_, n))
      if (const Tensor& t = *graph_.constant(weights); stores(t.size())) plan_.captured.emplace(weights, Layer{.out_axis = axis, .out = t.dim(axis), .in = t.dim(1 - axis)});
    if (n.is("LSTM") || n.is("GRU") || n.is("RNN"))
      for (size_t input : {1u, 2u}) {
        const Tensor* weights = graph_.constant(n.input(input));
        if (weights && weights->dtype() == DType::F32 && weights->rank() == 3 && stores(weights->size())) plan_.stored.push_back({id, input});
      }
  }
  if (!options_.flag("storage")) return;
  for (const Layer& layer : find_body_weights(graph_, options_.integer("min_weights")))
    if (const Wish w = wish(layer.node); w.weights && w.form != "float" && !(layer.transposed && layer.groups > 1) && graph_.constant(layer.weights)->dtype() == DType::F32) plan_.captured.emplace(layer.weights, layer);
}

void Planner::collect_statistics() {
  std::map<ValueId, int64_t> wanted;
  auto want = [&](ValueId v, int64_t axis) { wanted.emplace(v, axis); };
  for (const LayerPlan& p : plan_.layers) {
    if (p.form == LayerForm::Float32) continue;
    const Node& n = graph_.node(p.layer.node);
    if (plan_.seen[static_cast<size_t>(n.input(0))].dtype == DType::Undefined) continue;
    want(n.input(0), p.layer.input_axis);
    if (p.form == LayerForm::Int8Dynamic && !p.layer.convolution) want(n.outputs[0], -1);
  }
  for (NodeId id : graph_.order()) {
    const Node& n = graph_.node(id);
    if (!plan_.regions.is_integer(id)) continue;
    for (ValueId v : data_inputs(graph_, n, plan_.seen)) want(v, 1);
    if (keeps_float_output(graph_, plan_.regions, n, plan_.seen)) continue;
    const Node* activation = absorbed_activation(graph_, n);
    want(activation ? activation->outputs[0] : n.outputs[0], 1);
  }
  std::vector<CollectRequest> requests;
  for (const auto& [value, axis] : wanted) requests.push_back({value, axis});
  plan_.statistics = context_.calibration->collect(graph_, requests).tensors;
}

double Planner::signal_of(const Layer& layer) const {
  const auto it = plan_.statistics.find(graph_.node(layer.node).outputs[0]);
  if (it == plan_.statistics.end()) return 0;
  double signal = 0;
  for (size_t c = 0; c < it->second.channel_square.size(); ++c) signal += it->second.square(c);
  return signal;
}

/// Products with ranges at run time that read the same tensor: their outlier channels are moved into the weights together,
/// by the factors that this returns; empty for none. Touches nothing of other groups.
std::vector<double> Planner::judge_group(ValueId input, std::vector<LayerPlan*>& products) {
  const auto it = plan_.statistics.find(input);
  if (it == plan_.statistics.end() || it->second.channel_max.empty()) return {};
  std::vector<std::vector<float>> weights;
  for (const LayerPlan* p : products) weights.push_back(read_weights(p->layer, *graph_.constant(p->layer.weights)));
  std::vector<ProductNoise> noise;
  for (size_t i = 0; i < products.size(); ++i)
    noise.emplace_back(weights[i], static_cast<size_t>(products[i]->layer.out), static_cast<size_t>(products[i]->layer.in), signal_of(products[i]->layer));
  std::vector<double> factors;
  if (options_.flag("equalize")) factors = equalizing_factors(it->second, noise);
  for (size_t i = 0; i < products.size(); ++i) {
    const double nsr = noise[i].nsr(it->second, factors);
    LayerReport& r = report(*products[i]);
    if (nsr > 0) r.estimated_sqnr_db = -10 * std::log10(nsr);
    if (!factors.empty()) r.cost = "one multiplication of its input, whose outlier channels moved into the weights";
    if (!r.estimated_sqnr_db || *r.estimated_sqnr_db >= options_.number("min_layer_sqnr_db") || wish(products[i]->layer.node).form == "dynamic") continue;
    r.reason = "8-bit inputs would leave its output only " + std::to_string(static_cast<int>(std::lround(*r.estimated_sqnr_db))) + " dB";
    r.cost = "float's time for its products";
    r.form = products[i]->form = stores(r.weight_elements) ? LayerForm::Int8Storage : LayerForm::Float32;
  }
  const bool any = std::any_of(products.begin(), products.end(), [](const LayerPlan* p) { return p->form == LayerForm::Int8Dynamic; });
  return any ? factors : std::vector<double>{};
}

void Planner::judge_products() {
  std::map<ValueId, std::vector<LayerPlan*>> groups;
  for (LayerPlan& p : plan_.layers)
    if (p.form == LayerForm::Int8Dynamic && !p.layer.convolution) groups[graph_.node(p.layer.node).input(0)].push_back(&p);
  std::vector<std::pair<ValueId, std::vector<LayerPlan*>>> list(groups.begin(), groups.end());
  std::vector<std::vector<double>> factors(list.size());
  parallel_for(static_cast<int64_t>(list.size()), context_.threads, [&](int64_t i, int) {
    const auto at = static_cast<size_t>(i);
    factors[at] = judge_group(list[at].first, list[at].second);
  });
  for (size_t i = 0; i < list.size(); ++i)
    if (!factors[i].empty()) plan_.equalize.emplace(list[i].first, std::move(factors[i]));
}

}  // namespace

bool keeps_float_output(const Graph& graph, const Regions& regions, const Node& node, const std::vector<Observed>& seen) {
  const auto layer = layer_of(graph, node.id);
  if (!layer || layer->convolution || absorbed_activation(graph, node)) return false;
  const auto& uses = graph.value(node.outputs[0]).uses;
  return std::none_of(uses.begin(), uses.end(), [&](const Use& u) {
    if (u.index < 0 || !regions.is_integer(u.node)) return false;
    const auto inputs = data_inputs(graph, graph.node(u.node), seen);
    return std::find(inputs.begin(), inputs.end(), node.outputs[0]) != inputs.end();
  });
}

DType wide_type(const std::string& name) { return name == "int16" ? DType::I16 : name == "uint16" ? DType::U16 : DType::Undefined; }

LayerInputs inputs_of(const Graph& graph, const Int8Plan& plan, const Layer& layer, const std::vector<double>& factors) {
  const ValueId input = graph.node(layer.node).input(0);
  const auto it = plan.statistics.find(input);
  return inputs_of(graph, layer, plan.seen[static_cast<size_t>(input)], it == plan.statistics.end() ? nullptr : &it->second, factors);
}

Int8Plan plan_int8(const Graph& graph, PassContext& context, const Options& options) { return Planner(graph, context, options).plan(); }

}  // namespace infopt
