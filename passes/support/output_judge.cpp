#include "passes/support/output_judge.h"

#include <algorithm>

#include "lib/base/threads.h"
#include "passes/support/layers.h"
#include "passes/support/signal_to_noise.h"

namespace infopt {
namespace {

constexpr double kJudgedMacs = 2e9;  // multiplications of all samples that judge
constexpr int64_t kMostJudges = 64;
constexpr int64_t kFewest = 16;  // samples in all, where some are held

}  // namespace

int64_t judging_samples(double macs, int64_t fewest) { return std::clamp(static_cast<int64_t>(kJudgedMacs / std::max(macs, 1.0)), fewest, kMostJudges); }

int64_t judging_samples(const Graph& graph, const std::vector<Observed>& seen, int64_t fewest) {
  double macs = 0;
  for (NodeId id : graph.order()) macs += static_cast<double>(macs_of(graph, graph.node(id), seen));
  return judging_samples(macs / 4, fewest);
}

int64_t held_for_judging(int64_t judging, int64_t samples) { return samples < kFewest ? 0 : std::min(judging, samples / 4); }

OutputJudge::OutputJudge(const Graph& graph, Calibration& calibration, int threads, int64_t samples, int64_t held)
    : calibration_(calibration), threads_(threads), held_(held), samples_(calibration.first_samples(samples)), expected_(run(graph)) {}

std::optional<double> OutputJudge::decibels(const Graph& changed) const {
  const auto made = run(changed);
  std::optional<double> worst;
  for (size_t o = 0; o < changed.outputs().size(); ++o) {
    NoiseSums sum;
    const auto consider = [&] {
      if (const auto db = sum.decibels(); db && (!worst || *db < *worst)) worst = db;
    };
    for (size_t s = 0; s < made.size(); ++s) {
      if (held_ > 0 && static_cast<int64_t>(s) == held_) consider();
      if (expected_[s][o].defined() && made[s][o].defined() && is_float(made[s][o].dtype())) sum.add(expected_[s][o], made[s][o]);
    }
    consider();
  }
  return worst;
}

std::vector<std::vector<Tensor>> OutputJudge::run(const Graph& graph) const {
  SessionOptions options;
  options.fold = false;
  const PartialSession session = calibration_.session(graph, options);
  std::vector<std::vector<Tensor>> made(samples_.size());
  parallel_for(static_cast<int64_t>(samples_.size()), threads_, [&](int64_t s, int) { made[static_cast<size_t>(s)] = session.run(samples_[static_cast<size_t>(s)].inputs); });
  return made;
}

}  // namespace infopt
