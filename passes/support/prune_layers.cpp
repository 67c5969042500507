#include "passes/support/prune_layers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "calibration/calibration.h"
#include "lib/base/error.h"
#include "lib/base/threads.h"
#include "passes/support/body_weights.h"
#include "passes/support/collect_moments.h"
#include "passes/support/gptq.h"
#include "passes/support/groups.h"
#include "passes/support/recurrent_weights.h"
#include "passes/support/signal_to_noise.h"
#include "passes/support/sparsegpt.h"

namespace infopt {
namespace {

PrunePattern pattern_of(const Options& options) {
  PrunePattern p{PrunePattern::Kind::Unstructured, options.integer("n"), options.integer("m"), options.integer("block_rows"), options.integer("block_columns")};
  const std::string& name = options.text("pattern");
  if (name == "n:m") p.kind = PrunePattern::Kind::NM;
  if (name == "block") p.kind = PrunePattern::Kind::Block;
  if (p.kind == PrunePattern::Kind::NM && p.n >= p.m) throw Error(ErrorKind::Usage, "prune_weights: of " + std::to_string(p.m) + " weights " + std::to_string(p.n) + " can't stay; give n below m");
  return p;
}

/// Whether those that read its weights all multiply by them.
bool only_multiplied_by(const Graph& graph, ValueId weights) {
  return std::ranges::all_of(graph.value(weights).uses, [&](const Use& use) {
    if (use.index == kGraphOutput) return false;
    if (use.index == kCapture) return bodies_multiply_by(graph, graph.node(use.node), weights);
    return use.index == 1 && layer_of(graph, use.node).has_value();
  });
}

/// Why a layer keeps its weights; empty where it is to be pruned.
std::string obstacle(const Layer& layer, const GroupRule* rule, const PruneOptions& o) {
  if (layer.out * layer.in * layer.taps < o.min_weights) return "too few weights to gain from it";
  if (rule && rule->sparsity && *rule->sparsity == 0) return "group " + rule->name + " keeps its weights";
  if (o.pattern.kind == PrunePattern::Kind::NM && layer.in < o.pattern.m) return "fewer than " + std::to_string(o.pattern.m) + " input channels in a group";
  return {};
}

}  // namespace

PruneOptions PruneOptions::of(const Options& options) {
  PruneOptions o;
  o.pattern = pattern_of(options);
  const std::string &score = options.text("score"), &scope = options.text("scope");
  o.score = score == "sparsegpt" ? Score::SparseGpt : score == "wanda" ? Score::Wanda : Score::Magnitude;
  o.scope = scope == "global" ? Scope::Global : scope == "sensitivity" ? Scope::Sensitivity : Scope::Layer;
  if (o.pattern.kind == PrunePattern::Kind::NM && o.scope != Scope::Layer) throw Error(ErrorKind::Usage, "prune_weights: an n:m pattern takes the same share of every layer; scope " + scope + " has nothing to choose");
  o.sparsity = options.number("sparsity");
  o.damp = options.number("damp");
  o.refit_steps = options.integer("refit_steps");
  o.min_weights = options.integer("min_weights");
  o.sequential = options.flag("sequential");
  return o;
}

std::string_view name_of(PruneOptions::Score score) {
  return score == PruneOptions::Score::SparseGpt ? "sparsegpt" : score == PruneOptions::Score::Wanda ? "wanda" : "magnitude";
}

namespace {

/// Weights that no Layer has, after the layers.
std::vector<LayerToPrune> other_weights(const Graph& graph, int64_t least) {
  std::vector<LayerToPrune> found;
  for (const RecurrentWeights& w : find_recurrent_weights(graph, least)) {
    const Tensor& t = *graph.constant(w.value);
    if (t.rank() == 3) found.push_back({.layer = recurrent_layer(w.reader, w.value, t.shape()), .recurrent = graph.node(w.reader).input(1) == w.value ? 1 : 2});
  }
  for (const Layer& layer : find_body_weights(graph, least)) found.push_back({.layer = layer});
  return found;
}

}  // namespace

std::vector<LayerToPrune> plan_pruning(const Graph& graph, const PassContext& context, const PruneOptions& options, const std::vector<Observed>& seen, std::vector<PrunedLayer>& reports) {
  std::vector<LayerToPrune> plan;
  const std::vector<const GroupRule*> groups = assign_groups(graph, context.groups);
  const auto add = [&](LayerToPrune p, std::string why) {
    const Layer& layer = p.layer;
    const GroupRule* rule = groups[static_cast<size_t>(layer.node)];
    PrunedLayer& r = reports.emplace_back();
    r.node = graph.label(layer.node);
    r.op = graph.node(layer.node).op;
    r.weights_before = r.weights_after = layer.out * layer.in * layer.taps;
    r.shape_before = r.shape_after = to_string(graph.constant(layer.weights)->shape());
    r.reason = obstacle(layer, rule, options);
    if (r.reason.empty() && !only_multiplied_by(graph, layer.weights) && p.recurrent == 0) r.reason = "its weights serve another operator too";
    if (!r.reason.empty()) {
      const std::vector<float> weights = read_weights(layer, *graph.constant(layer.weights));
      r.zeros = std::count(weights.begin(), weights.end(), 0.0f);
      return;
    }
    p.fixed = rule && rule->sparsity;
    p.sparsity = sparsity_of(options.pattern, p.fixed ? *rule->sparsity : options.sparsity);
    p.report = reports.size() - 1;
    if (options.needs_data() && !p.moments) r.reason = std::move(why);
    plan.push_back(std::move(p));
  };
  for (const Layer& layer : find_layers(graph)) {
    const bool computed = !seen.empty() && seen[static_cast<size_t>(graph.node(layer.node).input(0))].dtype != DType::Undefined;
    const bool shared = graph.value(layer.weights).uses.size() > 1;
    const bool moments = options.needs_data() && computed && !shared && InputMoments::possible(layer);
    add({.layer = layer, .moments = moments}, shared ? "by magnitude: several operators share its weights" : computed ? "by magnitude: a transposed convolution" : "by magnitude: its input can't be computed");
  }
  for (LayerToPrune& p : other_weights(graph, options.min_weights)) {
    const bool body = p.recurrent == 0;
    add(std::move(p), body ? "by magnitude: a body multiplies by it" : "");
  }
  return plan;
}

namespace {

class Pruner {
 public:
  Pruner(GraphEdit& edit, const std::vector<LayerToPrune>& plan, const PruneOptions& options, PassContext& context, std::vector<PrunedLayer>& reports)
      : edit_(edit), original_(edit.graph().clone()), plan_(plan), options_(options), context_(context), reports_(reports) {}

  void run() {
    std::vector<bool> done(plan_.size(), false);
    if (std::any_of(plan_.begin(), plan_.end(), [](const LayerToPrune& p) { return p.moments || p.recurrent > 0; }) && options_.needs_data()) run_with_data(done);
    for (size_t i = 0; i < plan_.size(); ++i)
      if (!done[i]) prune(i, nullptr);
    edit_.finish();
  }

 private:
  /// Nothing follows from the inputs but the choice: then the weights that stay keep their values.
  bool moves_weights() const { return options_.score == PruneOptions::Score::SparseGpt || options_.refit_steps > 0; }
  void run_with_data(std::vector<bool>& done);
  void prune(size_t index, const InputMoments* moments, const std::vector<std::vector<float>>& inputs = {});
  void prune_recurrent(size_t index, const std::vector<Observed>& seen);
  PrunedWeights prune_group(const LayerToPrune& p, const std::vector<float>& weights, int64_t rows, const std::vector<float>& h, int threads) const;

  GraphEdit& edit_;
  std::shared_ptr<Graph> original_;
  const std::vector<LayerToPrune>& plan_;
  const PruneOptions& options_;
  PassContext& context_;
  std::vector<PrunedLayer>& reports_;
  std::map<ValueId, Tensor> made_;  ///< pruned weights, by what they were
};

/// In every place where the graph reads them. Constants keep their names, which groups may mean.
void put_weights(GraphEdit& edit, ValueId weights, const Tensor& made) {
  if (edit.graph().value(weights).is_constant()) return edit.set_constant(weights, made);
  if (!edit.graph().value(weights).uses.empty()) edit.replace_uses(weights, edit.add_constant(made));
}

void Pruner::prune_recurrent(size_t index, const std::vector<Observed>& seen) {
  const LayerToPrune& p = plan_[index];
  const RecurrentMoments m = see_recurrent_moments(*original_, seen, {p.layer.weights, p.layer.node}, *context_.calibration, context_.threads);
  if (m.h.empty()) reports_[p.report].reason = "by magnitude: what it multiplies can't be computed";
  prune(index, nullptr, m.h);
}

void Pruner::run_with_data(std::vector<bool>& done) {
  std::vector<Layer> layers;
  std::vector<size_t> places;
  for (size_t i = 0; i < plan_.size(); ++i)
    if (plan_[i].moments) layers.push_back(plan_[i].layer), places.push_back(i);
  std::vector<SharedInput> shared = find_shared_inputs(*original_, layers);
  const std::shared_ptr<Graph> pruned = options_.sequential ? original_->clone() : nullptr;
  std::unique_ptr<GraphEdit> ahead = pruned ? std::make_unique<GraphEdit>(*pruned) : nullptr;
  // Layers that no such moments are taken of come first: what follows them sees them pruned.
  const std::vector<Observed> seen = context_.calibration->observe(*original_);
  for (size_t i = 0; i < plan_.size(); ++i) {
    if (plan_[i].moments) continue;
    if (plan_[i].recurrent > 0) prune_recurrent(i, seen);
    else prune(i, nullptr);
    done[i] = true;
    if (ahead) put_weights(*ahead, plan_[i].layer.weights, made_.at(plan_[i].layer.weights));
  }
  if (ahead) ahead->finish();
  MomentsRun moments(*original_, pruned.get(), layers, shared, context_);
  int64_t count = 0;
  for (std::span<SharedInput> rest(shared); !rest.empty();) {
    const std::span<SharedInput> now = rest.first(together(rest, ahead != nullptr));
    moments.collect(now);
    for (SharedInput& s : now) {
      for (size_t l : s.layers) {
        prune(places[l], s.moments.get());
        done[places[l]] = true;
        context_.tell(++count, static_cast<int64_t>(layers.size()), "layers pruned");
        if (ahead) ahead->set_input(layers[l].node, 1, ahead->add_constant(made_.at(layers[l].weights)));
      }
      s.moments.reset();
    }
    if (ahead) ahead->finish();
    rest = rest.subspan(now.size());
  }
}

PrunedWeights Pruner::prune_group(const LayerToPrune& p, const std::vector<float>& weights, int64_t rows, const std::vector<float>& h, int threads) const {
  const auto k = p.layer.in * p.layer.taps;
  const std::vector<int64_t> order = grouped_columns(p.layer);
  const double sparsity = p.sparsity;
  if (options_.score == PruneOptions::Score::SparseGpt && !h.empty())
    return sparsegpt(weights, rows, h, {options_.pattern, sparsity, options_.damp, static_cast<int>(options_.refit_steps), order, threads});
  std::vector<double> norms;
  const bool wanda = options_.score == PruneOptions::Score::Wanda && !h.empty();
  for (int64_t i = 0; i < k && wanda; ++i) norms.push_back(std::sqrt(static_cast<double>(h[static_cast<size_t>(i * k + i)])));
  PrunedWeights out{weights, prune_mask(prune_scores(weights, k, norms), rows, k, options_.pattern, sparsity, wanda ? PruneRank::Row : PruneRank::Layer, order)};
  apply_mask(out.mask, out.weights);
  if (options_.refit_steps > 0 && !h.empty()) out.weights = refit_masked(weights, out.weights, out.mask, rows, h, options_.damp, static_cast<int>(options_.refit_steps), threads);
  return out;
}

/// `inputs`: H of each group, where they aren't a layer's.
void Pruner::prune(size_t index, const InputMoments* moments, const std::vector<std::vector<float>>& inputs) {
  const LayerToPrune& p = plan_[index];
  PrunedLayer& r = reports_[p.report];
  const Tensor stored = *original_->constant(p.layer.weights);
  std::vector<float> weights = read_weights(p.layer, stored);
  const bool known = moments || !inputs.empty();
  try {
    const int64_t groups = known ? p.layer.groups : 1, rows = p.layer.out / groups;
    const auto each = static_cast<std::ptrdiff_t>(weights.size()) / groups;
    const int threads = groups > 1 ? 1 : context_.threads;
    std::vector<double> signal(static_cast<size_t>(groups)), noise(signal.size());
    parallel_for(groups, context_.threads, [&](int64_t g, int) {
      std::vector<float> own(weights.begin() + g * each, weights.begin() + (g + 1) * each);
      static const std::vector<float> kNothing;
      const std::vector<float>& h = moments ? moments->h(g) : known ? inputs[static_cast<size_t>(g)] : kNothing;
      if (moments && moves_weights()) own = moments->corrected(own, rows, g, options_.damp, threads);
      const PrunedWeights pruned = prune_group(p, own, rows, h, threads);
      if (known) {
        signal[static_cast<size_t>(g)] = quadratic_error(own, std::vector<float>(own.size(), 0.0f), rows, h, threads);
        noise[static_cast<size_t>(g)] = quadratic_error(own, pruned.weights, rows, h, threads);
      }
      std::copy(pruned.weights.begin(), pruned.weights.end(), weights.begin() + g * each);
    });
    double all = 0, lost = 0;
    for (size_t g = 0; g < signal.size(); ++g) all += signal[g], lost += noise[g];
    r.output_sqnr_db = sqnr_db(all, lost);
  } catch (const Error& e) {
    throw e.within(original_->label(p.layer.node));
  }
  r.pattern = describe(options_.pattern);
  r.algorithm = known ? name_of(options_.score) : "magnitude";
  if (known && options_.refit_steps > 0) r.algorithm += ", refit";
  r.zeros = std::count(weights.begin(), weights.end(), 0.0f);
  const Tensor made = cast(write_weights(p.layer, stored.shape(), weights), stored.dtype());
  put_weights(edit_, p.layer.weights, made);
  made_[p.layer.weights] = made;
}

}  // namespace

void prune_layers(GraphEdit& edit, const std::vector<LayerToPrune>& plan, const PruneOptions& options, PassContext& context, std::vector<PrunedLayer>& reports) {
  Pruner(edit, plan, options, context, reports).run();
}

}  // namespace infopt
