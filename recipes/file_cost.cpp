#include "recipes/file_cost.h"

#include <limits>

#include "lib/onnx/infer.h"
#include "passes/pipeline.h"
#include "passes/support/flops.h"

namespace infopt {

Model unpacked(const Model& model) {
  Model copy = model;
  copy.graph = model.graph->clone();
  const PassDef* fold = find_pass("fold_constants");
  Options options;
  for (const OptionDef& o : fold->options) options.set(o.name, o.otherwise);
  options.set("max_bytes", std::numeric_limits<int64_t>::max());
  options.set("max_growth", 1e6);
  Report ignored;
  static const std::vector<GroupRule> kNoGroups;
  run_pipeline(copy, {{fold->name, options}, {"share_constants", {}}, {"remove_dead", {}}}, {.profile = find_profile("generic"), .groups = kNoGroups}, ignored);
  return copy;
}

ModelCost cost_of(const Model& model, Calibration* calibration) {
  Model copy = model;
  copy.graph = model.graph->clone();
  if (!calibration) infer_types(copy);
  const GraphCosts costs = count_costs(*copy.graph, calibration ? calibration->observe(*copy.graph) : declared_shapes(*copy.graph));
  return {costs.macs, costs.parameters};
}

}  // namespace infopt
