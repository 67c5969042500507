// Before: a float graph. After: the same graph with zeros among its weights; shapes stay.
//
// Which weights go: the smallest (magnitude), those with the smallest |w|·‖x‖₂ in their output's row (Wanda, arXiv 2306.11695), or by SparseGPT
// (passes/support/sparsegpt.h), which moves the others to make up for them, each layer with the inputs that the pruned layers before it give.
// Anywhere, N of each M input channels, or in blocks.
#include <cmath>

#include "calibration/calibration.h"
#include "lib/base/error.h"
#include "lib/report/format.h"
#include "passes/pass.h"
#include "passes/support/body_weights.h"
#include "passes/support/permute_channels.h"
#include "passes/support/prune_layers.h"

namespace infopt {
namespace {

std::string percent(double share) { return std::to_string(static_cast<int>(std::lround(100 * share))) + " %"; }

/// What wasn't reached, and why.
void say_what_is_missing(const std::vector<LayerToPrune>& plan, const std::vector<PrunedLayer>& reports, PassContext& context) {
  double wanted = 0, gone = 0, all = 0;
  for (const LayerToPrune& p : plan) {
    const PrunedLayer& r = reports[p.report];
    wanted += p.sparsity * static_cast<double>(r.weights_before);
    gone += static_cast<double>(r.zeros);
    all += static_cast<double>(r.weights_before);
  }
  if (plan.empty()) {
    const std::string why = reports.empty() ? "the model has no Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU or RNN with constant weights"
                                            : "none of its " + std::to_string(reports.size()) + " layers with weights can be, " + reports.front().node + " because: " + reports.front().reason;
    context.report.warnings.push_back("prune_weights: nothing was pruned: " + why);
  } else if (gone < wanted - 0.01 * all) {
    context.report.warnings.push_back("prune_weights: " + percent(gone / all) + " of the weights went, not " + percent(wanted / all) + ": groups and blocks at the layers' edges are smaller");
  }
}

/// Channels in another order where that is free: by it the pattern takes less away.
void permute(GraphEdit& edit, PassContext& context, const PrunePattern& pattern, const std::vector<Observed>& seen) {
  const Dimensions dimensions(context.model, edit.graph(), seen);
  const Permuted p = permute_for_pattern(edit, dimensions, pattern.n, pattern.m);
  if (p.channels == 0) return edit.note("no order of channels is better for " + describe(pattern) + " than the one there is");
  edit.note(std::to_string(p.channels) + " channels of " + std::to_string(p.groups) + " groups changed places: of |w| of what reads them " + format::percent(p.after) + " stay, not " + format::percent(p.before));
}

void run(GraphEdit& edit, PassContext& context, const Options& given) {
  const PruneOptions options = PruneOptions::of(given);
  if (options.needs_data() && !context.calibration) throw Error(ErrorKind::Usage, "the step prune_weights needs calibration data for its score, refit or scope: give --calib DATA");
  hoist_body_weights(edit, options.min_weights);
  edit.finish();
  const std::vector<Observed> seen = options.needs_data() ? context.calibration->observe(edit.graph()) : std::vector<Observed>{};
  if (given.flag("permute") && options.pattern.kind == PrunePattern::Kind::NM) permute(edit, context, options.pattern, seen);
  std::vector<PrunedLayer> reports;
  std::vector<LayerToPrune> plan = plan_pruning(edit.graph(), context, options, seen, reports);
  allocate_sparsity(edit.graph(), plan, options, context);
  prune_layers(edit, plan, options, context, reports);
  say_what_is_missing(plan, reports, context);
  for (PrunedLayer& r : reports) context.report.pruned.push_back(std::move(r));
}

}  // namespace

PassDef pass_prune_weights() {
  return {
      .name = "prune_weights",
      .summary = "zeros where weights matter least; shapes stay",
      .contract = Contract::Lossy,
      .options =
          {
              {.name = "pattern", .help = "unstructured; n:m keeps n of each m input channels; block takes whole blocks", .otherwise = std::string("unstructured"), .choices = {"unstructured", "n:m", "block"}},
              {.name = "n", .help = "n:m: how many stay", .otherwise = int64_t{2}, .least = 1, .most = 64},
              {.name = "m", .help = "n:m: of how many", .otherwise = int64_t{4}, .least = 2, .most = 64},
              {.name = "block_rows", .help = "block: output channels", .otherwise = int64_t{16}, .least = 1, .most = 1024},
              {.name = "block_columns", .help = "block: input channels of one tap", .otherwise = int64_t{1}, .least = 1, .most = 64},
              {.name = "permute", .help = "n:m: channels get another order first where the graph allows it, by which the pattern takes less of |w| away", .otherwise = false},
              {.name = "sparsity", .help = "the share of the weights that goes; n:m has its own", .otherwise = 0.5, .least = 0, .most = 0.99},
              {.name = "scope",
               .help = "layer: the same share of each; global: one threshold for all; sensitivity: by what each layer, pruned alone, does to the outputs",
               .otherwise = std::string("layer"),
               .choices = {"layer", "global", "sensitivity"}},
              {.name = "score",
               .help = "magnitude needs no data; wanda looks at the inputs' energy; sparsegpt moves what stays to make up for what goes",
               .otherwise = std::string("sparsegpt"),
               .choices = {"magnitude", "wanda", "sparsegpt"}},
              {.name = "damp", .help = "added to the diagonal of the inputs' moments, as a share of its mean", .otherwise = 0.01, .least = 0, .most = 10},
              {.name = "refit_steps", .help = "conjugate gradients that fit what stays to the layer's outputs; 0: none", .otherwise = int64_t{0}, .least = 0, .most = 1000},
              {.name = "sequential", .help = "with the inputs that the pruned layers before give", .otherwise = true},
              {.name = "min_weights", .help = "layers with fewer stay as they are", .otherwise = int64_t{400}, .least = 1},
          },
      .run = run,
  };
}

}  // namespace infopt
