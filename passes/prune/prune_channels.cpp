// Takes whole channels, neurons and attention heads out of the graph, and fits what is left to give the outputs that there were.
//
// before     any graph whose products have constant weights
// after      the same nodes with smaller weights; shapes, split sizes, groups and the like are put right (passes/support/remove_channels.h)
// conditions What must shrink together is found by rules for each operator (dimensions.h). Dimensions of the model's outputs stay, as does what no rule
//            follows; the report names it. How much of each group goes is chosen by what its loss costs the outputs, measured, for what it saves.
// formula    A class c of channels with weights W_c goes at tr(W_c·[(H⁻¹)_cc]⁻¹·W_cᵀ), H the covariance of what reads it; then each layer behind is refitted
//            by ridge regression on the inputs that it now has and the outputs that it had.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "calibration/calibration.h"
#include "lib/base/error.h"
#include "lib/report/format.h"
#include "passes/pass.h"
#include "passes/support/choose_channels.h"
#include "passes/support/distill.h"
#include "passes/support/groups.h"
#include "passes/support/layer_bias.h"
#include "passes/support/reestimate_batchnorm.h"
#include "passes/support/refit_layers.h"
#include "passes/support/remove_channels.h"
#include "passes/support/run_times.h"

namespace infopt {
namespace {

constexpr int kMostRounds = 5;                       ///< of choosing for a time that is then measured
constexpr double kMostReduced = 0.95, kScatter = 0.01;  ///< of what is asked for then; of measured times
constexpr int64_t kLeastMultiple = 4;                 ///< of channels, where the count of FLOPs is what matters
constexpr int64_t kSamples = 1024, kMostVariations = 16;
constexpr double kSampleFlops = 1.5e12;              ///< of one run over all samples
constexpr int64_t kLeastSamples = 32;                ///< that are fitted to all the same
constexpr double kDamageFlops = 6e12;                ///< of measuring what groups cost: a minute or two
constexpr int64_t kLevels = 4, kLeastMeasured = 4, kMostMeasured = 16;
constexpr int64_t kSampleBytes = int64_t{1} << 30;   ///< of the largest value of all samples
constexpr double kTrainingFlops = 6e12;  ///< some minutes on one thread
constexpr double kUnaskedFlops = 1e11;   ///< some seconds: before it is asked whether more training pays
constexpr int64_t kRecurrent = 4;        ///< times a product's time: step by step, in small pieces
constexpr int64_t kLeastSteps = 40, kMostSteps = 600;

std::string millions(int64_t count) {
  char text[32];
  std::snprintf(text, sizeof text, count < 1000000 ? "%.3f M" : "%.2f M", static_cast<double>(count) / 1e6);
  return text;
}

RemovalCosts::Unit unit_of(const std::string& target) {
  if (target == "params") return RemovalCosts::Unit::Parameters;
  if (target == "size") return RemovalCosts::Unit::Bytes;
  return target == "latency" ? RemovalCosts::Unit::Time : RemovalCosts::Unit::Macs;
}

class Pruner {
 public:
  Pruner(GraphEdit& edit, PassContext& context, const Options& options) : edit_(edit), graph_(edit.graph()), context_(context), options_(options) {
    choice_.score = options.text("score");
    choice_.reduce = options.number("reduce");
    choice_.multiple = options.integer("multiple_of") > 0 ? options.integer("multiple_of") : context.profile.channels_at_once;
    choice_.strict = options.integer("multiple_of") > 0;
    if (!choice_.strict && options.text("target") == "flops") choice_.finest = std::max<int64_t>(kLeastMultiple, choice_.multiple / 4);
    choice_.most = options.number("most");
    choice_.uniform = options.text("ratios") == "uniform";
  }

  void run() {
    const bool needs = !choice_.uniform || options_.text("repair") != "none" || choice_.score == "reconstruction" || choice_.score == "activation" || for_latency();
    if (needs && !context_.calibration) throw Error(ErrorKind::Usage, "the step prune_channels needs calibration data: give --calib DATA (without: ratios: uniform, repair: none, score: l1)");
    seen_ = context_.calibration ? context_.calibration->observe(graph_) : std::vector<Observed>{};
    if (context_.calibration && !context_.calibration->obstacles().empty()) throw Error(ErrorKind::Unsupported, "prune_channels must run the whole model, and can't: " + context_.calibration->obstacles()[0]);
    const Dimensions dimensions(context_.model, graph_, seen_);
    const ChannelGroups groups(dimensions);
    name_locked(groups);
    const GraphCosts costs = costs_now();
    vary_samples(costs);
    limit_samples(costs, groups);
    PassContext context = varied();
    std::vector<GroupChoice> choices = rank_groups(dimensions, groups, usable(groups), choice_, context);
    const double saved = choose(choices, dimensions, costs);
    if (saved < choice_.reduce - (for_latency() ? kScatter : 1e-9)) say_best(saved, choices.empty(), groups);
    const std::vector<bool> gone = gone_of(choices, dimensions);
    if (std::none_of(gone.begin(), gone.end(), [](bool g) { return g; })) return;
    const std::shared_ptr<Graph> original = graph_.clone();
    remove(dimensions, gone);
    name_removed(*original, groups, choices);
    repair(*original, dimensions, gone);
    name_costs(costs);
  }

 private:
  int64_t variations(const GraphCosts& costs) const {
    const int64_t asked = options_.integer("variations"), samples = std::max<int64_t>(1, context_.calibration->data().size());
    if (asked >= 0) return asked;
    int64_t largest = 1;
    for (const Observed& o : seen_)
      if (o.dtype == DType::F32) largest = std::max(largest, 4 * element_count(o.shape));
    const auto flops = static_cast<double>(std::max<int64_t>(1, costs.flops()));
    const int64_t wanted = std::min({kSamples, static_cast<int64_t>(kSampleFlops / flops), kSampleBytes / largest});
    return std::clamp<int64_t>(wanted / samples - 1, 0, kMostVariations);
  }
  /// Forwards and backwards are about three runs.
  void set_steps(DistillOptions& o) const {
    if ((o.steps = options_.integer("steps")) > 0) return;
    const int64_t flops = costs_now().flops() + 2 * kRecurrent * recurrent_macs(graph_, context_.calibration->observe(graph_));
    const double each = 3.0 * static_cast<double>(o.batch) * static_cast<double>(std::max<int64_t>(1, flops));
    const auto affordable = static_cast<int64_t>(kTrainingFlops / each);
    o.steps = affordable < kLeastSteps ? 0 : std::min(affordable, kMostSteps);
    o.first = std::clamp(static_cast<int64_t>(kUnaskedFlops / each), kLeastSteps, kMostSteps);
  }

  /// Of slow models fewer samples count.
  void limit_samples(const GraphCosts& costs, const ChannelGroups& groups) {
    const auto flops = static_cast<double>(std::max<int64_t>(1, costs.flops()));
    choice_.samples = options_.integer("samples");
    if (choice_.samples == 0) {  // a change's way to the outputs is half of the graph, on average
      const double each = flops / 2 * static_cast<double>(kLevels * std::max<int64_t>(1, static_cast<int64_t>(usable(groups).size())));
      choice_.samples = std::clamp(static_cast<int64_t>(kDamageFlops / each), kLeastMeasured, kMostMeasured);
      if (choice_.samples < kMostMeasured && !choice_.uniform) edit_.note("what groups cost is measured on " + std::to_string(choice_.samples) + " samples, since the model is slow (samples: N)");
    }
    if (!samples_) return;
    const int64_t affordable = std::max(kLeastSamples, static_cast<int64_t>(kSampleFlops / flops));
    if (affordable >= samples_->size()) return;
    choice_.fit = affordable;
    edit_.note("fitted to the first " + std::to_string(affordable) + " of " + std::to_string(samples_->size()) + " samples, since the model is slow");
  }

  /// More samples, made from those that there are, and which of their places count.
  void vary_samples(const GraphCosts& costs) {
    if (!context_.calibration) return;
    samples_ = std::make_shared<VariedSamples>(context_.calibration->data(), graph_, variations(costs));
    calibration_ = std::make_unique<Calibration>(samples_, CalibrationOptions{.threads = context_.threads});
    std::vector<ChannelAxis> wanted;
    for (const Layer& l : find_layers(graph_))
      for (ValueId v : {graph_.node(l.node).input(0), find_bias(graph_, l).output}) {
        const auto rank = static_cast<int64_t>(seen_[static_cast<size_t>(v)].shape.size());
        const ChannelAxis place{v, l.convolution ? 1 : rank - 1};
        if (rank > 1 && seen_[static_cast<size_t>(v)].dtype == DType::F32 && !std::count(wanted.begin(), wanted.end(), place)) wanted.push_back(place);
      }
    live_ = LivePlaces(graph_, wanted, *samples_, context_.threads);
    if (live_.dead_share() > 0) edit_.note(format::percent(live_.dead_share()) + " of the places are masked: they count in no fit");
    choice_.live = &live_;
  }
  PassContext varied() const {
    PassContext context = context_;
    if (calibration_) context.calibration = calibration_.get();
    return context;
  }

  std::vector<size_t> usable(const ChannelGroups& groups) const {
    const auto& units = options_.list("units");
    std::vector<size_t> out;
    for (size_t g = 0; g < groups.groups().size(); ++g) {
      const ChannelGroup& group = groups.groups()[g];
      const bool kept = std::any_of(options_.list("keep").begin(), options_.list("keep").end(), [&](const std::string& p) { return matches_glob(p, graph_.node(group.node).name); });
      if (!kept && std::count(units.begin(), units.end(), name_of(group.kind))) out.push_back(g);
    }
    return out;
  }

  GraphCosts costs_now() const { return count_costs(graph_, context_.calibration ? context_.calibration->observe(graph_) : declared_shapes(graph_)); }

  bool for_latency() const { return options_.text("target") == "latency"; }

  /// Fills in how much of each goes; the share that is saved, as planned.
  double choose(std::vector<GroupChoice>& choices, const Dimensions& dimensions, const GraphCosts& costs) {
    const RemovalCosts::Unit unit = unit_of(options_.text("target"));
    const int64_t at_once = context_.profile.channels_at_once;
    RemovalCosts planned(dimensions, costs, unit, for_latency() ? node_times(graph_, first_sample()) : std::vector<double>{}, for_latency() ? at_once : 1);
    RemovalCosts felt(dimensions, costs, RemovalCosts::Unit::Macs, {}, at_once);
    const RemovalCosts all = planned;
    const std::vector<GroupChoice> none = choices;
    const double asked = choice_.reduce;
    double saved = 0;
    for (int round = 0; round < kMostRounds && saved < asked - kScatter; ++round) {
      choices = none;
      planned = all;
      choose_counts(choices, planned, choice_.finest > 0 ? &felt : nullptr, choice_);
      saved = all.total() > 0 ? 1 - planned.total() / all.total() : 0;
      if (!for_latency()) break;
      const bool most = saved < choice_.reduce;
      saved = measured_saving(dimensions, gone_of(choices, dimensions));
      if (most) break;
      choice_.reduce = std::min(kMostReduced, choice_.reduce * std::clamp((asked + kScatter) / std::max(saved, 1e-3), 1.05, 2.0));
    }
    choice_.reduce = asked;
    return saved;
  }

  Sample first_sample() const { return context_.calibration->first_samples(1).at(0); }

  static std::vector<bool> gone_of(const std::vector<GroupChoice>& choices, const Dimensions& dimensions) {
    std::vector<bool> gone(static_cast<size_t>(dimensions.atoms()), false);
    for (const GroupChoice& c : choices)
      for (size_t i = 0; i < c.removed; ++i) gone[static_cast<size_t>(c.ranking.order[i])] = true;
    return gone;
  }

  /// Of a run's time on this machine.
  double measured_saving(const Dimensions& dimensions, const std::vector<bool>& gone) {
    const std::shared_ptr<Graph> smaller = graph_.clone();
    GraphEdit edit(*smaller);
    remove_channels(edit, dimensions, gone);
    edit.finish();
    times_ = run_times(graph_, *smaller, first_sample());
    return 1 - times_.second / times_.first;
  }

  void remove(const Dimensions& dimensions, const std::vector<bool>& gone) {
    const std::shared_ptr<Graph> before = graph_.clone();
    std::string failure;
    try {
      remove_channels(edit_, dimensions, gone);
      edit_.finish();
      if (!context_.calibration) return;
      const std::vector<Observed> now = context_.calibration->observe(graph_);
      if (!context_.calibration->obstacles().empty()) failure = context_.calibration->obstacles()[0];
      for (ValueId v : graph_.outputs())
        if (failure.empty() && now[static_cast<size_t>(v)].shape != seen_[static_cast<size_t>(v)].shape) failure = "the output " + graph_.value(v).name + " changed its shape";
    } catch (const Error& e) {
      failure = e.what();
    }
    if (failure.empty()) return;
    edit_.restore(*before);
    throw Error(ErrorKind::Defect, "the pruned graph doesn't run: " + failure);
  }

  void repair(const Graph& original, const Dimensions& dimensions, const std::vector<bool>& gone) {
    if (options_.text("repair") == "none") return;
    const auto keep = [&](ValueId value, int64_t axis) {
      std::vector<bool> out;
      if (const Positions* p = dimensions.axis(value, axis < 0 ? axis + dimensions.rank(value) : axis))
        for (int32_t a : *p) out.push_back(!gone[static_cast<size_t>(dimensions.find(a))]);
      return out;
    };
    PassContext context = varied();
    const bool asked = options_.text("repair") == "train";
    DistillOptions o;
    if (asked) set_steps(o);
    const bool train = asked && o.steps > 0;
    samples_->give_held(!train);
    if (options_.text("repair") != "batchnorm") {
      RefitOptions refit{.samples = choice_.fit, .residuals = options_.flag("residuals"), .live = &live_};
      if (samples_->originals() > 1) refit.origin = [this](int64_t sample) { return samples_->origin(sample); };
      const RefitReport r = refit_layers(edit_, original, keep, refit, context);
      edit_.finish();
      edit_.note(std::to_string(r.layers) + " layers refitted to the outputs that they had, " + std::to_string(r.kept) + " left as they are");
    }
    if (const int64_t n = reestimate_batchnorm(edit_, original, keep, context); n > 0) edit_.note("mean and variance of " + std::to_string(n) + " batch normalizations estimated anew");
    if (!asked) return;
    samples_->give_held(true);
    if (!train) return edit_.note("not trained: it would take too long; steps: N does it");
    o.rate = options_.number("rate");
    o.within = options_.number("within");
    o.live = &live_;
    name_training(distill(edit_, original, keep, *samples_, o, context));
  }

  void name_training(const DistillReport& r) {
    if (!r.obstacle.empty()) return edit_.note("not trained: " + r.obstacle);
    char text[160];
    std::snprintf(text, sizeof text, "trained for %lld steps, best after %lld: the outputs on samples held out are at %.1f dB, after the refit %.1f", static_cast<long long>(r.run), static_cast<long long>(r.steps), -10 * std::log10(std::max(1e-12, r.noise_after)), -10 * std::log10(std::max(1e-12, r.noise_before)));
    edit_.note(text);
    if (!r.boundary.empty()) edit_.note("what lies before " + r.boundary + " wasn't trained: there is no gradient of it");
  }

  // What the report says.
  void name_locked(const ChannelGroups& groups) {
    if (groups.impossible() == 0) return;
    edit_.note(format::percent(static_cast<double>(groups.impossible()) / static_cast<double>(groups.positions())) + " of the channels can't be followed and stay:");
    for (const LockedChannels& l : groups.locked())
      if (!l.lock.output) edit_.note("  " + std::to_string(l.positions) + " of " + graph_.label(l.node) + ": " + l.lock.reason + (l.lock.node == kNone ? "" : " (" + graph_.label(l.lock.node) + ")"));
  }
  /// Kinds that there are and that `units` leaves alone.
  std::string left_out(const ChannelGroups& groups) const {
    const auto& units = options_.list("units");
    std::string out;
    for (const GroupKind kind : {GroupKind::Channels, GroupKind::Neurons, GroupKind::Heads, GroupKind::Width}) {
      const bool there = std::any_of(groups.groups().begin(), groups.groups().end(), [&](const ChannelGroup& g) { return g.kind == kind; });
      if (there && !std::count(units.begin(), units.end(), name_of(kind))) out += (out.empty() ? "" : ", ") + std::string(name_of(kind));
    }
    return out;
  }
  void say_best(double reached, bool nothing, const ChannelGroups& groups) {
    const std::string asked = format::percent(choice_.reduce) + " fewer " + options_.text("target");
    const std::string others = left_out(groups);
    const std::string text = nothing && !others.empty() ? "prune_channels found nothing of its units that can be taken out; there is " + others + " (units)"
                             : nothing ? "prune_channels found nothing that can be taken out: no layer's outputs are all read by layers with constant weights"
                                     : "prune_channels was asked for " + asked + "; " + format::percent(reached) + " is the most within its options (units, most, multiple_of, keep)";
    context_.report.warnings.push_back(text);
    edit_.note(text);
  }
  void name_removed(const Graph& original, const ChannelGroups& groups, const std::vector<GroupChoice>& choices) {
    for (const GroupChoice& c : choices) {
      if (c.removed == 0) continue;
      const ChannelGroup& g = groups.groups()[c.group];
      char text[96];
      const double damage = c.measured.empty() ? 0 : c.damage(c.removed);
      std::snprintf(text, sizeof text, "%zu → %zu %s", g.classes.size(), g.classes.size() - c.removed, std::string(name_of(g.kind)).c_str());
      std::string line = original.label(g.node) + (g.makers.size() > 1 ? " and " + std::to_string(g.makers.size() - 1) + " more" : "") + ": " + text;
      if (damage > 0) {
        std::snprintf(text, sizeof text, ", %.1f dB alone and before the repair", -10 * std::log10(damage));
        line += text;
      }
      edit_.note(line);
    }
  }
  void name_costs(const GraphCosts& before) {
    const GraphCosts after = costs_now();
    const auto line = [&](const std::string& what, int64_t was, int64_t is) {
      if (was > 0) edit_.note(what + ": " + millions(was) + " → " + millions(is) + " (−" + format::percent(1 - static_cast<double>(is) / static_cast<double>(was)) + ")");
    };
    line("FLOPs", before.flops(), after.flops());
    line("parameters", before.parameters, after.parameters);
    if (times_.first <= 0) return;
    char text[96];
    std::snprintf(text, sizeof text, "a run on this machine, in turns: %.3f → %.3f ms (−%s)", times_.first, times_.second, format::percent(1 - times_.second / times_.first).c_str());
    edit_.note(text);
  }

  GraphEdit& edit_;
  const Graph& graph_;
  PassContext& context_;
  const Options& options_;
  ChoiceOptions choice_;
  std::vector<Observed> seen_;
  std::shared_ptr<VariedSamples> samples_;
  std::unique_ptr<Calibration> calibration_;
  LivePlaces live_;
  std::pair<double, double> times_;  ///< milliseconds of a run before and after, where that is the target
};

void run(GraphEdit& edit, PassContext& context, const Options& options) { Pruner(edit, context, options).run(); }

}  // namespace

PassDef pass_prune_channels() {
  return {
      .name = "prune_channels",
      .summary = "channels, neurons and attention heads taken out; what is left is fitted to the outputs that there were",
      .contract = Contract::Lossy,
      .options =
          {
              {.name = "target", .help = "what `reduce` is of", .otherwise = std::string("flops"), .choices = {"flops", "params", "size", "latency"}},
              {.name = "reduce", .help = "the share that is to go", .otherwise = 0.3, .least = 0, .most = 0.95},
              {.name = "units",
               .help = "what may go: convolutions' channels, products' neurons, attention heads; width is what normalizations run over",
               .otherwise = std::vector<std::string>{"channels", "neurons", "heads"},
               .choices = {"channels", "neurons", "heads", "width"}},
              {.name = "score",
               .help = "which go first: those that the others explain best in what reads them, with least energy, or with the smallest weights or scales",
               .otherwise = std::string("reconstruction"),
               .choices = {"reconstruction", "activation", "l1", "l2", "bn_scale"}},
              {.name = "ratios", .help = "sensitivity: by what each group's loss costs the outputs, measured; uniform: the same share of each", .otherwise = std::string("sensitivity"), .choices = {"sensitivity", "uniform"}},
              {.name = "multiple_of", .help = "what is left of a group is a multiple of it; 0: the target's, of small groups a smaller power of 2; for flops down to 4 where that costs the outputs less", .otherwise = int64_t{0}, .least = 0, .most = 1024},
              {.name = "most", .help = "of any one group", .otherwise = 0.75, .least = 0, .most = 1},
              {.name = "keep", .help = "patterns of the names of nodes whose outputs stay whole", .otherwise = std::vector<std::string>{}},
              {.name = "repair", .help = "batchnorm: the statistics of normalizations alone; refit: every layer behind by least squares; train: then all together by gradients", .otherwise = std::string("train"), .choices = {"train", "refit", "batchnorm", "none"}},
              {.name = "variations", .help = "inputs made from each sample, for the choice and the repair; -1: up to 16, for about 1000 in all, less where that takes minutes", .otherwise = int64_t{-1}, .least = -1, .most = 1000},
              {.name = "steps", .help = "of training, each on 16 samples; 0: up to 600, as many as some minutes allow, while the outputs come closer", .otherwise = int64_t{0}, .least = 0, .most = 1000000},
              {.name = "rate", .help = "of training: a step's change of a weight over its tensor's root mean square, at most", .otherwise = 0.003, .least = 0, .most = 1},
              {.name = "within", .help = "what values between the blocks weigh in training beside the outputs", .otherwise = 0.5, .least = 0, .most = 1000},
              {.name = "residuals", .help = "a layer whose output is added to something makes up for that one's error too", .otherwise = true},
              {.name = "samples", .help = "that the groups' damage is measured on; 0: 16, of slow models down to 4", .otherwise = int64_t{0}, .least = 0},
          },
      .run = run,
  };
}

}  // namespace infopt
