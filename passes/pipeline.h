// Runs a recipe's steps over a model, in their order.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "passes/pass.h"

namespace infopt {

struct PipelineStep {
  std::string pass;
  Options options;
};

struct PipelineContext {
  const Profile& profile;
  const std::vector<GroupRule>& groups;
  Calibration* calibration = nullptr;
  std::string method = "minmax";
  double percentile = 99.99;
  int threads = 1;
  /// Check each exact or rounding pass on the calibration data's first sample: outputs before and after.
  bool check_contracts = false;
  std::function<void(const std::string& pass)> started = {};
  bool measure_layers = false;  ///< see PassContext
  std::function<void(const std::string& pass, int64_t done, int64_t total, const std::string& of)> progress = {};
};

/// Changes `model`, and adds what happened to `report`. A pass that needs a newer opset gets it first; where the model can't be
/// carried there, a pass that only optimizes is left out with a warning.
/// Throws Error(Defect) where a pass breaks its contract, and what the passes throw, naming the pass.
void run_pipeline(Model& model, const std::vector<PipelineStep>& steps, const PipelineContext& context, Report& report);

}  // namespace infopt
