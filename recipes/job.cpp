#include "recipes/job.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <set>

#include "calibration/observer.h"
#include "lib/base/atomic_file.h"
#include "lib/base/error.h"
#include "lib/base/finite.h"
#include "lib/base/interrupt.h"
#include "lib/base/memory.h"
#include "lib/base/threads.h"
#include "lib/onnx/check.h"
#include "lib/onnx/export.h"
#include "lib/onnx/import.h"
#include "lib/onnx/infer.h"
#include "lib/report/render.h"
#include "lib/report/compare.h"
#include "passes/pipeline.h"
#include "passes/support/layers.h"
#include "recipes/file_cost.h"
#include "recipes/file_layers.h"
#include "recipes/measure.h"
#include "recipes/version.h"

namespace infopt {
namespace {

constexpr int64_t kReadBackSamples = 2;
constexpr int64_t kLatencyRuns = 20;
constexpr double kFarDecibels = 10;  ///< outputs with less of the original's signal are worth a warning
constexpr double kFloatTolerance = 1e-2;  ///< of an output's largest magnitude; reordered arithmetic of 16 bits is within it

int64_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

class Job {
 public:
  explicit Job(const JobSpec& spec) : spec_(spec), output_(spec.output) {}
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;
  ~Job() { drop_withheld(); }
  Report run();
  StatisticsSet calibrate();
  PreparedModel prepare();

 private:
  template <class F> void stage(const std::string& name, F f) {
    if (spec_.progress) spec_.progress(name, 0, 0, {});
    const auto start = std::chrono::steady_clock::now();
    f();
    report_.measured.stages.push_back({name, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()});
  }
  Progress progress(const std::string& name) const {
    if (!spec_.progress) return {};
    return [report = spec_.progress, name](int64_t done, int64_t total) { report(name, done, total, "samples"); };
  }
  void open_calibration();
  void read_with_data();
  void run_original();
  void check_float_graph();
  PipelineContext pipeline_context(const std::string& name);
  void list_unknown_operators();
  void read_back();
  void measure_in_engine();
  void warn_of_noise();
  void compare();
  void note_left_out(const std::vector<std::string>& outputs, const std::vector<std::string>& obstacles);
  void withhold_output();
  void drop_withheld();
  void check_weights() const;
  void note_unused(const DataSet& data, const std::string& path);
  void release_output();
  bool measures() const { return !spec_.engine.empty() || !spec_.evaluation_data.empty() || !spec_.report_folder.empty() || !spec_.recipe.gates.empty(); }

  const JobSpec& spec_;
  std::string output_;  ///< where the model is written
  Report report_;
  Model model_;
  std::shared_ptr<Graph> original_;
  std::unique_ptr<Calibration> calibration_;
  Model written_;
  std::vector<Tensor> original_outputs_;  ///< on the first sample
  std::vector<std::vector<Tensor>> unpruned_;  ///< where the recipe prunes: the original's outputs on the first samples
  std::set<std::string> stood_before_;  ///< files in the output's folder before a withheld output was written
};

std::filesystem::path folder_of(const std::string& path) {
  const auto folder = std::filesystem::path(path).parent_path();
  return folder.empty() ? "." : folder;
}

/// A NaN or an infinity among weights is the model's, whatever is done with it. Other constants may hold them: masks do.
void Job::check_weights() const {
  for (const Layer& layer : find_layers(*model_.graph)) {
    const Value& weights = model_.graph->value(layer.weights);
    if (weights.constant.defined()) check_finite(weights.constant, spec_.model + ", weights '" + weights.name + "' of " + model_.graph->label(layer.node));
  }
}

void Job::note_unused(const DataSet& data, const std::string& path) {
  for (const std::string& name : data.unused()) report_.warnings.push_back(path + ": array '" + name + "' is no input of the model, and wasn't used");
}

/// The model as it came, on the first sample; --check-passes looks closer.
void Job::run_original() {
  if (!calibration_ || ((calibration_->reused() || spec_.check_contracts) && !prunes(spec_.recipe))) return;
  const std::vector<Sample> first = calibration_->first_samples(prunes(spec_.recipe) ? kReadBackSamples : 1);
  SessionOptions options;
  options.fold = false;
  try {
    if (prunes(spec_.recipe))  // what calibration sees later is another function already
      for (const Sample& sample : first) unpruned_.push_back(run_partially(*model_.graph, options, sample).outputs);
    else if (!first.empty()) original_outputs_ = run_partially(*model_.graph, options, first[0]).outputs;
  } catch (const Error& e) {
    throw e.within(first[0].where);
  }
  trim_memory();
}

/// What calibration saw is the graph after the passes that promise to change nothing: its outputs must be the original's.
void Job::check_float_graph() {
  if (original_outputs_.empty() || calibration_->reference_outputs().empty()) return;
  double worst = 0;
  const auto& now = calibration_->reference_outputs().front();
  for (size_t i = 0; i < now.size() && i < original_outputs_.size(); ++i)
    if (now[i].defined() && original_outputs_[i].defined() && now[i].dtype() == original_outputs_[i].dtype()) worst = std::max(worst, relative_error(original_outputs_[i], now[i]));
  original_outputs_.clear();
  if (worst > kFloatTolerance)
    report_.warnings.push_back("before quantization the outputs on the first sample had changed by " + std::to_string(worst) + " of their largest magnitude already; --check-passes says which pass it is");
}

void Job::open_calibration() {
  if (spec_.calibration_data.empty()) return;
  const int64_t limit = spec_.samples > 0 ? spec_.samples : spec_.recipe.calibrate.samples.value_or(0);
  CalibrationOptions options{spec_.threads, progress("calibrate"), spec_.device};
  calibration_ = std::make_unique<Calibration>(open_data(spec_.calibration_data, model_, spec_.recipe, limit), options);
  note_unused(calibration_->data(), spec_.calibration_data);
  if (!spec_.statistics.empty()) calibration_->reuse(parse_statistics(read_file(spec_.statistics), spec_.statistics));
}

PipelineContext Job::pipeline_context(const std::string& name) {
  PipelineContext context{find_profile(spec_.recipe.target), spec_.recipe.groups, calibration_.get(), spec_.recipe.calibrate.method, spec_.recipe.calibrate.percentile, spec_.threads, spec_.check_contracts, {}};
  context.measure_layers = measures();
  if (spec_.progress) context.started = [this, name](const std::string& pass) { spec_.progress(name + ": " + pass, 0, 0, {}); };
  if (spec_.progress) context.progress = [this](const std::string& pass, int64_t done, int64_t total, const std::string& of) { spec_.progress(pass, done, total, of); };
  return context;
}

std::vector<PipelineStep> steps_of(const Recipe& recipe) {
  std::vector<PipelineStep> steps;
  for (const Step& s : recipe.steps) steps.push_back({s.pass, options_of(s)});
  return steps;
}

void Job::list_unknown_operators() {
  std::map<std::string, int64_t> unknown;
  for (NodeId id : model_.graph->order()) {
    const Node& n = model_.graph->node(id);
    if (!n.domain.empty()) ++unknown[n.domain + "." + n.op];
  }
  for (const auto& [op, count] : unknown) report_.unknown_operators.push_back({op, count});
}

/// The file as it stands on the disk must load and run; without data it must at least load.
void Job::read_back() {
  check_model_file(output_, ErrorKind::Defect);
  written_ = read_model(output_);
  if (output_ != spec_.output)
    for (const std::string& extra : written_.external_files)
      if (!stood_before_.contains(extra)) remove_on_signal((folder_of(output_) / extra).string());
  report_.optimized = describe_file(output_, written_);
  if (prunes(spec_.recipe)) report_.optimized_cost = cost_of(unpacked(written_), calibration_.get());
  if (!calibration_) return;
  SessionOptions options;
  options.fold = false;  // few runs: memory counts more
  const PartialSession session = calibration_->session(*written_.graph, options);
  const auto& expected = unpruned_.empty() ? calibration_->reference_outputs() : unpruned_;
  const std::vector<Sample> samples = calibration_->first_samples(kReadBackSamples);
  std::vector<std::vector<Tensor>> outputs(samples.size());
  parallel_for(static_cast<int64_t>(samples.size()), spec_.threads, [&](int64_t i, int) { outputs[static_cast<size_t>(i)] = session.run(samples[static_cast<size_t>(i)].inputs); });
  std::vector<OutputComparison> sums(written_.graph->outputs().size());
  for (size_t i = 0; i < samples.size(); ++i) {
    for (size_t o = 0; o < sums.size(); ++o) {
      if (!outputs[i][o].defined()) continue;
      if (is_float(outputs[i][o].dtype()))
        for (double v : to_vector<double>(outputs[i][o]))
          if (std::isnan(v)) throw Error(ErrorKind::Defect, "the written model gives NaN on " + samples[i].where, output_);
      if (i < expected.size() && expected[i][o].defined() && outputs[i][o].dtype() != DType::String) sums[o].add(expected[i][o], outputs[i][o]);
    }
    if (i < expected.size()) report_.compared_samples = static_cast<int64_t>(i) + 1;
  }
  if (report_.compared_samples == 0) return;
  report_.compared_data = spec_.calibration_data;
  std::vector<std::string> left_out;
  for (size_t o = 0; o < sums.size(); ++o) {
    const std::string& name = written_.graph->value(written_.graph->outputs()[o]).name;
    if (outputs[0][o].defined() && expected[0][o].defined()) {
      report_.outputs.push_back(sums[o].result(name));
      if (std::string text = sums[o].differing(name); !text.empty() && !measures()) report_.warnings.push_back(std::move(text));
    } else left_out.push_back("'" + name + "'");
  }
  if (!left_out.empty()) note_left_out(left_out, session.obstacles());
}

void Job::note_left_out(const std::vector<std::string>& outputs, const std::vector<std::string>& obstacles) {
  const std::string text = "not compared: " + listed(outputs) + (obstacles.empty() ? "" : ", because " + listed(obstacles));
  if (std::find(report_.warnings.begin(), report_.warnings.end(), text) == report_.warnings.end()) report_.warnings.push_back(text);
}

/// Where no gate and no metric judges the outputs, the report says that they are far from the original's.
void Job::warn_of_noise() {
  if (!spec_.recipe.gates.empty() || !report_.metrics.empty()) return;
  const auto is_floating = [&](const std::string& name) {
    const auto& outputs = written_.graph->outputs();
    return std::any_of(outputs.begin(), outputs.end(), [&](ValueId v) { return written_.graph->value(v).name == name && is_float(written_.graph->value(v).type.dtype); });
  };
  const OutputReport* worst = nullptr;
  for (const OutputReport& o : report_.outputs)
    if (is_floating(o.name) && (!worst || o.sqnr_db < worst->sqnr_db)) worst = &o;
  if (!worst || !(worst->sqnr_db < kFarDecibels)) return;
  const bool finite = std::isfinite(worst->sqnr_db);
  report_.warnings.push_back("output '" + worst->name + "' keeps only " + (finite ? std::to_string(std::lround(worst->sqnr_db)) + " dB" : "nothing") + " of the original's: see what that costs the task (eval.metric), or take a milder recipe");
}

void Job::measure_in_engine() {
  std::vector<double> limits;
  for (const GateLimit& g : spec_.recipe.gates) {
    if (g.name == "max_latency_ratio") limits.push_back(g.limit);
    if (g.name == "max_slowdown") limits.push_back(g.limit);
    if (g.name == "min_speedup") limits.push_back(1 / g.limit);
  }
  if (spec_.progress) spec_.progress("engine", 0, 0, {});
  const LatencyPair latency = ask_engine(spec_.engine, spec_.model, output_, limits);
  if (spec_.progress) spec_.progress("compare", 0, 0, {});
  report_.measured.original_latency = latency.original;
  report_.measured.optimized_latency = latency.optimized;
}

void Job::compare() {
  if (!spec_.engine.empty()) measure_in_engine();
  const std::string& path = spec_.evaluation_data.empty() ? spec_.calibration_data : spec_.evaluation_data;
  if (path.empty()) {
    report_.warnings.push_back("nothing was compared: there is no data; give --calib or --eval");
    return;
  }
  Model original = read_model(spec_.model);
  const bool evaluates = !spec_.evaluation_data.empty();
  const auto data = open_data(path, original, spec_.recipe, evaluates ? 0 : spec_.samples);
  if (path != spec_.calibration_data) note_unused(*data, path);
  const Comparison c = compare_models(*original.graph, *written_.graph, *data, evaluates ? spec_.recipe.eval : EvalSpec{}, spec_.threads, progress("compare"), path, spec_.device);
  report_.outputs = c.outputs;
  report_.metrics = c.metrics;
  report_.compared_samples = c.samples;
  report_.compared_data = path;
  if (report_.layers.empty()) report_.layers = layers_of_file(prunes(spec_.recipe) ? *unpacked(written_).graph : *written_.graph, *data);
  if (!c.not_compared.empty()) note_left_out(c.not_compared, c.obstacles);
  report_.warnings.insert(report_.warnings.end(), c.differing.begin(), c.differing.end());
  if (!c.obstacles.empty()) {
    report_.warnings.push_back(std::string(spec_.engine.empty() ? "latency, memory" : "memory") + " and metric were not measured: infopt can't run the whole model");
    return;
  }
  if (spec_.engine.empty()) {
    const LatencyPair latency = measure_latency(*original.graph, *written_.graph, *data, kLatencyRuns, spec_.device);
    report_.measured.original_latency = latency.original;
    report_.measured.optimized_latency = latency.optimized;
  }
  report_.measured.original_peak_memory = measure_peak_memory(spec_.model, *data);
  report_.measured.optimized_peak_memory = measure_peak_memory(output_, *data);
}

/// With gates that must hold, the model stands beside its place until they are judged.
void Job::withhold_output() {
  for (const auto& entry : std::filesystem::directory_iterator(folder_of(output_))) stood_before_.insert(entry.path().filename().string());
  output_ += ".unjudged";
  remove_on_signal(output_);
}

/// What was withheld and hasn't been released: the model, and the external data that is its own.
void Job::drop_withheld() {
  if (output_ == spec_.output) return;
  std::error_code ignored;
  for (const std::string& extra : written_.external_files)
    if (!stood_before_.contains(extra)) std::filesystem::remove(folder_of(output_) / extra, ignored);
  std::filesystem::remove(output_, ignored);
  forget_on_signal(output_);
  output_ = spec_.output;
}

void Job::release_output() {
  bool passed = true;
  for (const GateResult& g : report_.gates) passed = passed && g.passed;
  report_.optimized->path = spec_.output;
  if (!passed) return drop_withheld();
  std::error_code error;
  std::filesystem::rename(output_, spec_.output, error);
  if (error) throw Error(ErrorKind::Io, "can't be renamed into place: " + error.message(), spec_.output);
  for (const std::string& extra : written_.external_files) forget_on_signal((folder_of(output_) / extra).string());
  forget_on_signal(output_);
  output_ = spec_.output;
}

Report Job::run() {
  report_.infopt_version = kVersion;
  report_.command = spec_.command;
  report_.command_line = spec_.command_line;
  report_.target = spec_.recipe.target;
  report_.device = spec_.device_name;
  report_.recipe = to_yaml(spec_.recipe);
  find_profile(spec_.recipe.target);
  find_observer(spec_.recipe.calibrate.method);
  stage("read", [&] {
    model_ = read_model(spec_.model);
    check_weights();
    check_paths(spec_);
    report_.original = describe_file(spec_.model, model_);
    list_unknown_operators();
    open_calibration();
    if (prunes(spec_.recipe)) report_.original_cost = cost_of(unpacked(model_), calibration_.get());
  });
  run_original();
  stage("optimize", [&] { run_pipeline(model_, steps_of(spec_.recipe), pipeline_context("optimize"), report_); });
  check_float_graph();
  if (calibration_) {
    report_.calibration = CalibrationReport{spec_.recipe.calibrate.method, {}, spec_.calibration_data, calibration_->statistics().samples, "", calibration_->reused()};
    if (spec_.recipe.calibrate.method == "percentile") report_.calibration->percentile = spec_.recipe.calibrate.percentile;
  }
  const bool withhold = !spec_.keep_output_on_failure && !spec_.recipe.gates.empty();
  if (withhold) withhold_output();
  for (std::string& corrected : correct_declared_types(model_)) report_.warnings.push_back(std::move(corrected));
  stage("write", [&] { write_model(model_, output_, ExportOptions{.external_data = spec_.recipe.output.external_data == "always", .sparse_initializers = spec_.recipe.output.sparse_initializers, .data_path = spec_.output}); });
  model_.graph.reset();
  trim_memory();
  stage("read back", [&] { read_back(); });
  if (measures()) stage("compare", [&] { compare(); });
  warn_of_noise();
  report_.measured.process_peak_memory = peak_memory();
  report_.gates = evaluate_gates(spec_.recipe.gates, report_);
  if (withhold) release_output();
  write_reports(report_, spec_.report_folder);
  return report_;
}

/// What commands begin with that can do nothing without calibration data.
void Job::read_with_data() {
  model_ = read_model(spec_.model);
  check_weights();
  check_paths(spec_);
  open_calibration();
  if (!calibration_) throw Error(ErrorKind::Usage, spec_.command + " needs data: give --calib DATA");
}

StatisticsSet Job::calibrate() {
  read_with_data();
  calibration_->key_statistics();
  std::vector<PipelineStep> steps;
  bool reached = false;
  for (PipelineStep& s : steps_of(spec_.recipe)) {
    const PassDef* pass = find_pass(s.pass);
    steps.push_back(std::move(s));
    if (pass && pass->needs_calibration) {
      reached = true;
      break;
    }
  }
  if (!reached) throw Error(ErrorKind::Usage, "no step of the recipe " + spec_.recipe.name + " needs calibration");
  run_pipeline(model_, steps, pipeline_context("calibrate"), report_);
  return calibration_->statistics();
}

PreparedModel Job::prepare() {
  read_with_data();
  std::vector<PipelineStep> steps;
  for (PipelineStep& s : steps_of(spec_.recipe)) {
    const PassDef* pass = find_pass(s.pass);
    if (pass && pass->contract == Contract::Lossy) break;
    steps.push_back(std::move(s));
  }
  run_pipeline(model_, steps, pipeline_context("calibrate"), report_);
  return {std::move(model_), std::move(calibration_)};
}

}  // namespace

bool prunes(const Recipe& recipe) {
  return std::any_of(recipe.steps.begin(), recipe.steps.end(), [](const Step& s) { return s.pass.starts_with("prune_"); });
}

std::shared_ptr<DataSet> open_data(const std::string& path, const Model& model, const Recipe& recipe, int64_t limit) {
  DataOptions options = data_options(model);
  apply(recipe.data, options);
  options.limit = limit;
  return open_dataset(path, options);
}

void check_paths(const JobSpec& job) {
  std::error_code error;
  if (!job.output.empty()) {
    check_writable(job.output);
    if (std::filesystem::equivalent(job.model, job.output, error)) throw Error(ErrorKind::Usage, "the output is the model itself; give another path with -o", job.output);
  }
  if (!job.report_folder.empty()) {
    std::filesystem::create_directories(job.report_folder, error);
    check_writable(job.report_folder + "/report.json");
  }
}

void write_reports(const Report& report, const std::string& folder) {
  if (folder.empty()) return;
  write_file(folder + "/report.json", render_json(report));
  write_file(folder + "/report.md", render_markdown(report));
  write_file(folder + "/junit.xml", render_junit(report));
  if (report.search) write_file(folder + "/recipe.yaml", report.recipe);
}

Report run_job(const JobSpec& job) {
  if (job.recipe.search != "none") throw Error(ErrorKind::Usage, "the recipe " + job.recipe.name + " is one to search from; only `infopt quantize` does that");
  return Job(job).run();
}
StatisticsSet calibrate_model(const JobSpec& job) { return Job(job).calibrate(); }
PreparedModel prepare_model(const JobSpec& job) { return Job(job).prepare(); }

}  // namespace infopt
