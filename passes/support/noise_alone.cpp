#include "passes/support/noise_alone.h"

#include <algorithm>

#include "calibration/staged_run.h"
#include "lib/base/memory.h"
#include "passes/support/signal_to_noise.h"

namespace infopt {

std::vector<double> noise_alone(const Graph& graph, const std::vector<ValueId>& values, const std::function<void(GraphEdit&, ValueId)>& round, Calibration& calibration, int64_t samples, int threads) {
  const std::vector<Observed> seen = calibration.observe(graph);
  std::vector<ValueId> outputs;
  for (ValueId v : graph.outputs())
    if (is_float(seen[static_cast<size_t>(v)].dtype)) outputs.push_back(v);
  if (outputs.empty()) return {};
  std::vector<ValueId> targets = outputs;
  targets.insert(targets.end(), values.begin(), values.end());
  StagedRun staged(graph, calibration, targets, {.samples = samples, .threads = threads});
  std::vector<std::vector<Tensor>> reference(static_cast<size_t>(staged.samples()));
  staged.peek(graph, outputs, [&](int64_t sample, const std::vector<Tensor>& made) { reference[static_cast<size_t>(sample)] = made; });
  std::vector<double> noise;
  for (ValueId v : values) {
    staged.advance({v}, [](int64_t, const std::vector<Tensor>&) {});
    const std::shared_ptr<Graph> changed = graph.clone();
    GraphEdit edit(*changed);
    round(edit, v);
    edit.finish();
    std::vector<std::vector<NoiseSums>> parts(reference.size(), std::vector<NoiseSums>(outputs.size()));
    staged.peek(*changed, outputs, [&](int64_t sample, const std::vector<Tensor>& made) {
      const auto s = static_cast<size_t>(sample);
      for (size_t o = 0; o < outputs.size(); ++o) parts[s][o].add(reference[s][o], made[o]);
    });
    double worst = 0;
    for (size_t o = 0; o < outputs.size(); ++o) {
      NoiseSums sum;
      for (const auto& part : parts) sum.add(part[o]);  // in the order of the samples
      worst = std::max(worst, sum.ratio().value_or(0));
    }
    noise.push_back(worst);
    trim_memory();
  }
  return noise;
}

}  // namespace infopt
