#include "passes/pipeline.h"

#include <chrono>
#include <cmath>

#include "calibration/calibration.h"
#include "calibration/partial_session.h"
#include "lib/base/error.h"
#include "lib/onnx/upgrade.h"
#include "lib/report/compare.h"

namespace infopt {
namespace {

constexpr double kRounding = 1e-3;  ///< of an output's largest magnitude: what reordered float32 arithmetic may differ by over a deep net

std::string_view name_of(Contract c) { return c == Contract::Exact ? "exact" : c == Contract::Rounding ? "rounding" : "lossy"; }

std::string as_text(const OptionValue& value) {
  if (const bool* b = std::get_if<bool>(&value)) return *b ? "true" : "false";
  if (const int64_t* i = std::get_if<int64_t>(&value)) return std::to_string(*i);
  if (const double* d = std::get_if<double>(&value)) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", *d);
    return text;
  }
  if (const std::string* s = std::get_if<std::string>(&value)) return *s;
  std::string text;
  for (const std::string& s : std::get<std::vector<std::string>>(value)) text += (text.empty() ? "" : ", ") + s;
  return text;
}

std::vector<Tensor> outputs_on_first_sample(const Graph& graph, DataSet& data) {
  data.reset();
  Sample sample;
  if (!data.next(sample)) throw Error(ErrorKind::Malformed, "the calibration data has no samples");
  try {
    return run_partially(graph, {}, sample).outputs;
  } catch (const Error& e) {
    throw e.within(sample.where);
  }
}

ContractCheck compare_outputs(const std::vector<Tensor>& before, const std::vector<Tensor>& after, Contract contract) {
  ContractCheck check;
  check.samples = 1;
  for (size_t i = 0; i < before.size(); ++i)
    if (before[i].defined() && after[i].defined()) check.max_error = std::max(check.max_error, relative_error(before[i], after[i]));
  check.ok = check.max_error <= (contract == Contract::Exact ? 0 : kRounding);
  check.message = "outputs before and after on the first sample";
  return check;
}

/// False where the model can't be carried to the opset that the pass needs and it may be left out.
bool reach_opset(Model& model, const PassDef& pass, const PipelineContext& context, const Options& options, Report& report) {
  const int64_t needed = pass.opset_for ? pass.opset_for(*model.graph, context.groups, options) : pass.needs_opset;
  if (model.graph->opset() >= needed) return true;
  try {
    upgrade_opset(model, needed);
    return true;
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::Unsupported || pass.contract == Contract::Lossy) throw e.within("the step " + pass.name + " needs opset " + std::to_string(needed));
    report.warnings.push_back(pass.name + " was left out: the model can't be carried to opset " + std::to_string(needed) + " (" + e.what() + ")");
    return false;
  }
}

void run_step(Model& model, const PipelineStep& step, const PipelineContext& context, Report& report) {
  const PassDef* pass = find_pass(step.pass);
  if (!pass) throw Error(ErrorKind::Usage, "there is no pass '" + step.pass + "'");
  if (!reach_opset(model, *pass, context, step.options, report)) return;
  PassReport entry;
  entry.name = pass->name;
  entry.summary = pass->summary;
  entry.contract = name_of(pass->contract);
  for (const auto& [name, value] : step.options.all()) entry.options.emplace_back(name, as_text(value));
  entry.nodes_before = static_cast<int64_t>(model.graph->order().size());
  const bool check = context.check_contracts && context.calibration && pass->contract != Contract::Lossy;
  std::vector<Tensor> before;
  if (check) before = outputs_on_first_sample(*model.graph, context.calibration->data());
  const auto start = std::chrono::steady_clock::now();
  {
    GraphEdit edit(*model.graph);
    PassContext pass_context{model, context.profile, context.groups, context.calibration, context.method, context.percentile, context.threads, context.measure_layers, report, entry};
    if (context.progress) pass_context.progress = [&](int64_t done, int64_t total, const std::string& of) { context.progress(pass->name, done, total, of); };
    pass->run(edit, pass_context, step.options);
    edit.finish();
    entry.edits = edit.log();
  }
  entry.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  entry.nodes_after = static_cast<int64_t>(model.graph->order().size());
  if (check) {
    entry.check = compare_outputs(before, outputs_on_first_sample(*model.graph, context.calibration->data()), pass->contract);
    if (!entry.check->ok) throw Error(ErrorKind::Defect, "the pass " + pass->name + " changed the model's outputs by " + std::to_string(entry.check->max_error) + " of their largest magnitude");
  }
  report.passes.push_back(std::move(entry));
}

}  // namespace

void run_pipeline(Model& model, const std::vector<PipelineStep>& steps, const PipelineContext& context, Report& report) {
  for (const PipelineStep& step : steps) {
    if (context.started) context.started(step.pass);
    run_step(model, step, context, report);
  }
}

}  // namespace infopt
