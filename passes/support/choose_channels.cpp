#include "passes/support/choose_channels.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "calibration/calibration.h"
#include "calibration/staged_run.h"
#include "lib/base/memory.h"
#include "passes/support/layer_bias.h"
#include "passes/support/signal_to_noise.h"

namespace infopt {
namespace {

constexpr double kLeast = 1e-12;

std::vector<size_t> steps_of(const ChannelGroup& g, const ChoiceOptions& options) {
  const auto n = static_cast<int64_t>(g.classes.size());
  int64_t multiple = options.strict ? options.multiple : multiple_for(n * g.width, options.multiple);
  if (options.finest > 0) multiple = std::min(multiple, options.finest);
  std::vector<size_t> out;
  for (int64_t k = 1; k < n && static_cast<double>(k) <= options.most * static_cast<double>(n); ++k)
    if ((n - k) * g.width % multiple == 0) out.push_back(static_cast<size_t>(k));
  return out;
}

std::vector<bool> gone_of(const GroupReader& r, const ChannelGroup& g, const Ranking& ranking, size_t count, int64_t channels) {
  std::vector<bool> gone(static_cast<size_t>(channels), false);
  for (size_t i = 0; i < count; ++i) {
    const auto c = static_cast<size_t>(std::find(g.classes.begin(), g.classes.end(), ranking.order[i]) - g.classes.begin());
    for (int64_t column : r.columns[c]) gone[static_cast<size_t>(column)] = true;
  }
  return gone;
}

class Damage {
 public:
  Damage(const Dimensions& d, const ChannelGroups& groups, const std::map<ChannelAxis, ChannelMoments>& moments, const ChoiceOptions& options, PassContext& context)
      : graph_(d.graph()), groups_(groups), moments_(moments), options_(options), context_(context) {}

  void measure(std::vector<GroupChoice>& choices) {
    const std::vector<Observed> seen = context_.calibration->observe(graph_);
    for (ValueId v : graph_.outputs())
      if (seen[static_cast<size_t>(v)].dtype != DType::Undefined && is_float(seen[static_cast<size_t>(v)].dtype)) outputs_.push_back(v);
    if (outputs_.empty()) return;
    std::vector<ValueId> targets = outputs_;
    std::vector<std::pair<size_t, size_t>> order;  // place of the first thing that a group's readers read, choice
    std::vector<size_t> place(graph_.value_capacity(), 0);
    for (size_t i = 0; i < graph_.order().size(); ++i)
      for (ValueId v : graph_.node(graph_.order()[i]).outputs)
        if (v != kNone) place[static_cast<size_t>(v)] = i + 1;
    for (size_t c = 0; c < choices.size(); ++c) {
      size_t first = ~size_t{0};
      for (const GroupReader& r : choices[c].readers) first = std::min(first, place[static_cast<size_t>(r.input.value)]);
      order.emplace_back(first, c);
    }
    std::sort(order.begin(), order.end());
    for (const auto& [at, c] : order) targets.push_back(first_input(choices[c], place));
    StagedRun staged(graph_, *context_.calibration, targets, {.samples = options_.samples, .threads = context_.threads});
    reference_.resize(static_cast<size_t>(staged.samples()));
    staged.peek(graph_, outputs_, [&](int64_t sample, const std::vector<Tensor>& made) { reference_[static_cast<size_t>(sample)] = made; });
    std::vector<ValueId> reached;
    for (const auto& [at, c] : order) {
      const ValueId input = first_input(choices[c], place);
      if (!std::count(reached.begin(), reached.end(), input)) {
        staged.advance({input}, [](int64_t, const std::vector<Tensor>&) {});
        reached.push_back(input);
      }
      probe(staged, choices[c]);
      trim_memory();
    }
  }

 private:
  static ValueId first_input(const GroupChoice& c, const std::vector<size_t>& place) {
    return std::min_element(c.readers.begin(), c.readers.end(), [&](const GroupReader& a, const GroupReader& b) { return place[static_cast<size_t>(a.input.value)] < place[static_cast<size_t>(b.input.value)]; })->input.value;
  }

  void probe(const StagedRun& staged, GroupChoice& choice) {
    if (choice.steps.empty()) return;
    const size_t last = choice.steps.size() - 1;
    std::vector<size_t> points;
    for (size_t p : {last / 6, last / 3, 2 * last / 3, last})
      if (points.empty() || choice.steps[p] != points.back()) points.push_back(choice.steps[p]);
    for (size_t count : points) choice.measured.emplace_back(count, at(staged, choice, count));
  }

  double at(const StagedRun& staged, const GroupChoice& choice, size_t count) const {
    const auto changed = graph_.clone();
    {
      GraphEdit edit(*changed);
      for (const GroupReader& r : choice.readers) {
        const ChannelMoments& m = moments_.at(r.input);
        const Compensated now = compensate(graph_, r, m, gone_of(r, groups_.groups()[choice.group], choice.ranking, count, m.channels), context_.threads);
        const Tensor& stored = *graph_.constant(r.layer.weights);
        edit.set_input(r.layer.node, 1, edit.add_constant(cast(write_weights(r.layer, stored.shape(), now.weights), stored.dtype())));
        LayerBias bias = find_bias(graph_, r.layer);
        for (size_t o = 0; o < bias.values.size(); ++o) bias.values[o] += now.bias[o];
        write_bias(edit, r.layer, bias, bias.values);
      }
      edit.finish();
    }
    std::vector<std::vector<NoiseSums>> parts(reference_.size());
    staged.peek(*changed, outputs_, [&](int64_t sample, const std::vector<Tensor>& made) {
      const auto s = static_cast<size_t>(sample);
      for (size_t o = 0; o < made.size(); ++o) {
        NoiseSums sums;
        sums.add(reference_[s][o], made[o]);
        parts[s].push_back(sums);
      }
    });
    double total = 0;
    for (size_t o = 0; o < outputs_.size(); ++o) {
      NoiseSums sum;
      for (const auto& part : parts) sum.add(part[o]);
      total += sum.ratio().value_or(0);
    }
    return std::isfinite(total) ? total : 1e6;
  }

  const Graph& graph_;
  const ChannelGroups& groups_;
  const std::map<ChannelAxis, ChannelMoments>& moments_;
  const ChoiceOptions& options_;
  PassContext& context_;
  std::vector<ValueId> outputs_;
  std::vector<std::vector<Tensor>> reference_;
};

std::map<ChannelAxis, ChannelMoments> moments_for(const Graph& graph, const std::vector<GroupChoice>& choices, int64_t samples, const LivePlaces* live, PassContext& context) {
  std::vector<ChannelAxis> wanted;
  for (const GroupChoice& c : choices)
    for (const GroupReader& r : c.readers)
      if (!std::count(wanted.begin(), wanted.end(), r.input)) wanted.push_back(r.input);
  return context.calibration ? collect_channel_moments(graph, wanted, context, samples, live) : std::map<ChannelAxis, ChannelMoments>{};
}

std::vector<int32_t> part(const GroupChoice& c, size_t from, size_t to) { return {c.ranking.order.begin() + static_cast<int64_t>(from), c.ranking.order.begin() + static_cast<int64_t>(to)}; }

/// The next few steps of a group, and some far ahead.
std::vector<size_t> steps_ahead(const GroupChoice& c) {
  const auto next = std::upper_bound(c.steps.begin(), c.steps.end(), c.removed);
  std::vector<size_t> out;
  for (int64_t by = 0; by < c.steps.end() - next; by = by < 4 ? by + 1 : by * 3 / 2) out.push_back(next[by]);
  return out;
}

/// What is to go: so much of what is counted, and nearly as much of what kernels feel.
class Goal {
 public:
  Goal(RemovalCosts& counted, RemovalCosts* felt, double reduce) : counted_(counted), felt_(felt), counted_left_(left_of(counted, reduce)), felt_left_(felt ? left_of(*felt, kFelt * reduce) : 0) {
    if (felt && felt->total() > 0) unit_ = counted.total() / felt->total();
  }
  bool counted() const { return counted_.total() <= counted_left_; }
  bool reached() const { return counted() && (!felt_ || felt_->total() <= felt_left_); }
  /// Towards what is missing; beyond that nothing counts.
  double saving(const std::vector<int32_t>& going) const {
    const double felt = felt_ ? felt_->saving(going) : 0;
    if (counted()) return unit_ * std::min(felt, felt_->total() - felt_left_);
    const double saved = counted_.saving(going);
    return std::min(felt_ ? (1 - kWeight) * saved + kWeight * unit_ * felt : saved, counted_.total() - counted_left_);
  }
  void remove(const std::vector<int32_t>& classes) {
    counted_.remove(classes);
    if (felt_) felt_->remove(classes);
  }
  /// False, and nothing restored, where the goal would be missed without.
  bool restore(const std::vector<int32_t>& classes) {
    counted_.restore(classes);
    if (felt_) felt_->restore(classes);
    if (reached()) return true;
    remove(classes);
    return false;
  }

 private:
  static constexpr double kFelt = 0.75, kWeight = 0.3;
  static double left_of(const RemovalCosts& c, double reduce) { return (1 - reduce + 1e-9) * c.total(); }
  RemovalCosts& counted_;
  RemovalCosts* felt_;
  double counted_left_, felt_left_, unit_ = 0;
};

/// Takes the cheapest steps by damage a saving, until the goal is reached.
void choose_greedily(std::vector<GroupChoice>& choices, Goal& goal) {
  while (!goal.reached()) {
    GroupChoice* best = nullptr;
    size_t to = 0;
    double least = 0;
    for (GroupChoice& c : choices)
      for (size_t k : steps_ahead(c)) {
        const double saved = goal.saving(part(c, c.removed, k));
        if (saved <= 0) continue;
        const double price = (c.damage(k) - c.damage(c.removed) + kLeast) / saved;
        if (!best || price < least) best = &c, to = k, least = price;
      }
    if (!best) return;
    goal.remove(part(*best, best->removed, to));
    best->removed = to;
  }
}

/// Gives back what the goal doesn't need, the most damage first.
void give_back(std::vector<GroupChoice>& choices, Goal& goal) {
  std::vector<GroupChoice*> open;
  for (GroupChoice& c : choices)
    if (c.removed > 0) open.push_back(&c);
  const auto before = [](const GroupChoice& c) {
    const auto now = std::lower_bound(c.steps.begin(), c.steps.end(), c.removed);
    return now == c.steps.begin() ? size_t{0} : *(now - 1);
  };
  while (!open.empty()) {
    const auto relief = [&](const GroupChoice* c) { return c->damage(c->removed) - c->damage(before(*c)); };
    const auto most = std::max_element(open.begin(), open.end(), [&](const GroupChoice* a, const GroupChoice* b) { return relief(a) < relief(b); });
    GroupChoice& c = **most;
    const size_t to = before(c);
    if (goal.restore(part(c, to, c.removed))) c.removed = to;
    else open.erase(most);
    std::erase_if(open, [](const GroupChoice* o) { return o->removed == 0; });
  }
}

void choose_uniformly(const std::vector<GroupChoice>& choices, std::vector<GroupChoice>& out, const RemovalCosts& costs, double target, RemovalCosts& after) {
  for (int share = 1; share <= 100; ++share) {
    out = choices;
    after = costs;
    for (GroupChoice& c : out) {
      const double wanted = share * 0.01 * static_cast<double>(c.ranking.order.size() + 1);
      for (size_t k : c.steps)
        if (static_cast<double>(k) <= wanted + 0.5) c.removed = k;
      after.remove(part(c, 0, c.removed));
    }
    if (after.total() <= target) return;
  }
}

}  // namespace

int64_t multiple_for(int64_t positions, int64_t multiple) {
  while (multiple > 1 && (positions < 4 * multiple || positions % multiple != 0)) multiple /= 2;
  return std::max<int64_t>(1, multiple);
}

double GroupChoice::damage(size_t k) const {
  const auto local = [&](size_t i) { return std::max(kLeast, ranking.cost[std::min(i, ranking.cost.size() - 1)]); };
  if (k == 0) return 0;
  if (measured.empty()) return local(k);
  const auto factor = [&](size_t i) { return std::log(std::max(kLeast, measured[i].second) / local(measured[i].first)); };
  size_t above = 0;
  while (above < measured.size() && measured[above].first < k) ++above;
  double log_factor = above == measured.size() ? factor(above - 1) : factor(above);
  if (above > 0 && above < measured.size()) {
    const double part_way = static_cast<double>(k - measured[above - 1].first) / static_cast<double>(measured[above].first - measured[above - 1].first);
    log_factor = factor(above - 1) * (1 - part_way) + factor(above) * part_way;
  }
  return local(k) * std::exp(log_factor);
}

std::vector<GroupChoice> rank_groups(const Dimensions& d, const ChannelGroups& groups, const std::vector<size_t>& usable, const ChoiceOptions& options, PassContext& context) {
  std::vector<GroupChoice> out;
  for (size_t g : usable) {
    GroupChoice c{g, {}, readers_of(d, groups.groups()[g]), steps_of(groups.groups()[g], options), {}, 0};
    if (!c.readers.empty() && !c.steps.empty()) out.push_back(std::move(c));
  }
  const bool needs = options.score == "reconstruction" || options.score == "activation" || !options.uniform;
  const auto moments = needs ? moments_for(d.graph(), out, options.fit, options.live, context) : std::map<ChannelAxis, ChannelMoments>{};
  for (GroupChoice& c : out) c.ranking = rank_classes(d, groups.groups()[c.group], c.readers, moments, options.score, context.threads);
  if (!options.uniform) Damage(d, groups, moments, options, context).measure(out);
  return out;
}

bool choose_counts(std::vector<GroupChoice>& choices, RemovalCosts& costs, RemovalCosts* felt, const ChoiceOptions& options) {
  const double target = (1 - options.reduce) * costs.total() + 1e-9 * costs.total();
  if (options.uniform) {
    std::vector<GroupChoice> out;
    const std::vector<GroupChoice> start = choices;
    RemovalCosts after = costs;
    choose_uniformly(start, out, costs, target, after);
    choices = std::move(out);
    costs = std::move(after);
  } else {
    Goal goal(costs, felt, options.reduce);
    choose_greedily(choices, goal);
    if (goal.reached()) give_back(choices, goal);
  }
  return costs.total() <= target;
}

}  // namespace infopt
