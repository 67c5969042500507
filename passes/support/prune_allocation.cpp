#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>

#include "calibration/calibration.h"
#include "lib/base/error.h"
#include "lib/base/threads.h"
#include "passes/support/collect_moments.h"
#include "passes/support/flops.h"
#include "passes/support/prune_layers.h"
#include "passes/support/signal_to_noise.h"

namespace infopt {
namespace {

constexpr double kMost = 0.95;      ///< of one layer, where the shares are chosen here
constexpr int64_t kSamples = 8;     ///< that outputs are compared on
constexpr double kTrialFlops = 3e12;  ///< of all trials, about: a minute or two; slow models are tried on fewer samples, then on fewer levels

int64_t weights_of(const LayerToPrune& p) { return p.layer.out * p.layer.in * p.layer.taps; }

/// For each layer, what the least of its weights are worth, ascending.
using Worths = std::vector<std::vector<double>>;

/// Mean squares of each input of a layer's groups, by its place in the plan; empty where there are none.
std::vector<std::vector<double>> input_energies(const Graph& graph, const std::vector<LayerToPrune>& plan, PassContext& context) {
  std::vector<std::vector<double>> energies(plan.size());
  std::vector<Layer> layers;
  std::vector<size_t> places;
  for (size_t i = 0; i < plan.size(); ++i)
    if (plan[i].moments) layers.push_back(plan[i].layer), places.push_back(i);
  std::vector<SharedInput> shared = find_shared_inputs(graph, layers);
  MomentsRun moments(graph, nullptr, layers, shared, context);
  for (std::span<SharedInput> rest(shared); !rest.empty();) {
    const std::span<SharedInput> now = rest.first(together(rest, false));
    moments.collect(now);
    for (SharedInput& s : now) {
      for (size_t l : s.layers)
        for (int64_t g = 0; g < s.moments->groups(); ++g)
          for (int64_t i = 0, k = s.moments->k(); i < k; ++i) energies[places[l]].push_back(static_cast<double>(s.moments->h(g)[static_cast<size_t>(i * k + i)]));
      s.moments.reset();
    }
    rest = rest.subspan(now.size());
  }
  return energies;
}

/// One threshold for all: each layer loses what lies below it.
void allocate_globally(const Graph& graph, std::vector<LayerToPrune>& plan, const PruneOptions& options, PassContext& context) {
  const bool by_output = options.score != PruneOptions::Score::Magnitude;
  const std::vector<std::vector<double>> energies = by_output ? input_energies(graph, plan, context) : std::vector<std::vector<double>>(plan.size());
  Worths worths(plan.size());
  std::vector<double> all;
  for (size_t i = 0; i < plan.size(); ++i) {
    if (plan[i].fixed) continue;
    const std::vector<float> w = read_weights(plan[i].layer, *graph.constant(plan[i].layer.weights));
    const int64_t k = plan[i].layer.in * plan[i].layer.taps, rows = plan[i].layer.out / plan[i].layer.groups;
    double total = 0;
    for (size_t x = 0; x < w.size(); ++x) {
      const auto row = static_cast<int64_t>(x) / k, column = static_cast<int64_t>(x) % k;
      const double v = static_cast<double>(w[x]), energy = energies[i].empty() ? 1 : energies[i][static_cast<size_t>(row / rows * k + column)];
      worths[i].push_back(by_output ? v * v * energy : std::fabs(v));
      total += worths[i].back();
    }
    if (by_output && total > 0)
      for (double& worth : worths[i]) worth /= total;
    std::sort(worths[i].begin(), worths[i].end());
    const auto most = static_cast<size_t>(kMost * static_cast<double>(w.size()));
    all.insert(all.end(), worths[i].begin(), worths[i].begin() + static_cast<std::ptrdiff_t>(most));
  }
  double weights = 0;
  for (const auto& w : worths) weights += static_cast<double>(w.size());
  const auto count = static_cast<size_t>(std::min(options.sparsity * weights, static_cast<double>(all.size())));
  if (count == 0) return;
  std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count - 1), all.end());
  const double threshold = all[count - 1];
  for (size_t i = 0; i < plan.size(); ++i) {
    if (plan[i].fixed) continue;
    const auto below = static_cast<double>(std::upper_bound(worths[i].begin(), worths[i].end(), threshold) - worths[i].begin());
    plan[i].sparsity = std::min(kMost, below / static_cast<double>(worths[i].size()));
  }
}

/// Noise over signal of the worst output, with other weights in one layer.
class Trial {
 public:
  Trial(const Graph& graph, PassContext& context, int64_t samples) : context_(context), samples_(context.calibration->first_samples(samples)), reference_(outputs(graph)) {}

  double noise(const Graph& graph) const {
    const auto now = outputs(graph);
    double worst = 0;
    for (size_t o = 0; o < graph.outputs().size(); ++o) {
      NoiseSums sums;
      for (size_t s = 0; s < now.size(); ++s)
        if (now[s][o].defined() && reference_[s][o].defined() && is_float(now[s][o].dtype())) sums.add(reference_[s][o], now[s][o]);
      worst = std::max(worst, sums.ratio().value_or(0));
    }
    return worst;
  }

 private:
  std::vector<std::vector<Tensor>> outputs(const Graph& graph) const {
    SessionOptions options;
    options.fold = false;
    const PartialSession session = context_.calibration->session(graph, options);
    std::vector<std::vector<Tensor>> out(samples_.size());
    parallel_for(static_cast<int64_t>(samples_.size()), context_.threads, [&](int64_t i, int) { out[static_cast<size_t>(i)] = session.run(samples_[static_cast<size_t>(i)].inputs); });
    return out;
  }

  PassContext& context_;
  std::vector<Sample> samples_;
  std::vector<std::vector<Tensor>> reference_;
};

/// A stretch of a layer's curve of noise over sparsity: so much noise for each weight that goes.
struct Stretch {
  double slope;
  size_t layer;
  double weights;
};

/// The curve's lower convex hull from (0, 0).
void add_stretches(size_t layer, double count, const std::vector<std::pair<double, double>>& curve, std::vector<Stretch>& out) {
  std::pair<double, double> at{0, 0};
  while (at.first < curve.back().first) {
    std::pair<double, double> best = curve.back();
    double least = std::numeric_limits<double>::infinity();
    for (const auto& [s, noise] : curve) {
      if (s <= at.first) continue;
      const double slope = std::max(0.0, noise - at.second) / (s - at.first);
      if (slope <= least) least = slope, best = {s, noise};
    }
    out.push_back({least / count, layer, (best.first - at.first) * count});
    at = best;
  }
}

void allocate_by_sensitivity(const Graph& graph, std::vector<LayerToPrune>& plan, const PruneOptions& options, PassContext& context) {
  std::vector<double> levels{options.sparsity * 0.5, options.sparsity, options.sparsity + (kMost - options.sparsity) * 0.4, kMost};
  const auto flops = static_cast<double>(std::max<int64_t>(1, count_costs(graph, context.calibration->observe(graph)).flops()));
  const double affordable = kTrialFlops / (flops * static_cast<double>(std::max<size_t>(1, plan.size())));  // runs for each layer
  if (affordable < static_cast<double>(levels.size())) levels = {options.sparsity, kMost};
  const Trial trial(graph, context, std::clamp<int64_t>(static_cast<int64_t>(affordable / static_cast<double>(levels.size())), 1, kSamples));
  std::vector<Stretch> stretches;
  double left = 0;
  for (size_t i = 0; i < plan.size(); ++i) {
    if (plan[i].fixed) continue;
    const Layer& layer = plan[i].layer;
    const Tensor stored = *graph.constant(layer.weights);
    const std::vector<float> weights = read_weights(layer, stored);
    const int64_t k = layer.in * layer.taps;
    std::vector<std::pair<double, double>> curve;
    for (double s : levels) {
      std::vector<float> now = weights;
      apply_mask(prune_mask(prune_scores(now, k), layer.out, k, options.pattern, s, PruneRank::Layer, grouped_columns(layer)), now);
      const std::shared_ptr<Graph> copy = graph.clone();
      {
        GraphEdit edit(*copy);
        edit.replace_uses(layer.weights, edit.add_constant(cast(write_weights(layer, stored.shape(), now), stored.dtype())));
      }
      curve.emplace_back(s, trial.noise(*copy));
    }
    context.tell(static_cast<int64_t>(i) + 1, static_cast<int64_t>(plan.size()), "layers tried");
    add_stretches(i, static_cast<double>(weights_of(plan[i])), curve, stretches);
    left += options.sparsity * static_cast<double>(weights_of(plan[i]));
    plan[i].sparsity = 0;
  }
  std::stable_sort(stretches.begin(), stretches.end(), [](const Stretch& a, const Stretch& b) { return a.slope < b.slope; });
  for (const Stretch& s : stretches) {
    const double now = std::min(left, s.weights);
    plan[s.layer].sparsity += now / static_cast<double>(weights_of(plan[s.layer]));
    left -= now;
  }
}

}  // namespace

void allocate_sparsity(const Graph& graph, std::vector<LayerToPrune>& plan, const PruneOptions& options, PassContext& context) {
  if (options.scope == PruneOptions::Scope::Global) allocate_globally(graph, plan, options, context);
  if (options.scope == PruneOptions::Scope::Sensitivity) allocate_by_sensitivity(graph, plan, options, context);
}

}  // namespace infopt
