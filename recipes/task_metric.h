// The task's figure on labelled data: top1, top5, or what a program of the user's prints.
#pragma once
#include <memory>
#include <vector>

#include "lib/data/dataset.h"
#include "lib/ir/graph.h"
#include "lib/report/report.h"
#include "recipes/recipe.h"

namespace infopt {

class TaskMetric {
 public:
  virtual ~TaskMetric() = default;
  /// The outputs of both models for the next sample, in the samples' order, and its labels.
  virtual void add(const std::vector<Tensor>& original, const std::vector<Tensor>& optimized, const Tensor& label) = 0;
  virtual Metric result() = 0;
};

/// Null where the recipe asks for none. Throws Error(Malformed) where the data has no labels but the metric needs them, and
/// Error(Usage) where the recipe names an output that the model doesn't have.
std::unique_ptr<TaskMetric> make_metric(const EvalSpec& eval, const Graph& model, const DataSet& data, const std::string& data_path = {});

}  // namespace infopt
