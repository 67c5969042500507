#include "recipes/measure.h"

#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <mutex>

#include "calibration/partial_session.h"
#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "lib/base/process_memory.h"
#include "lib/base/threads.h"
#include "lib/bench/summary.h"
#include "lib/onnx/import.h"
#include "lib/report/compare.h"
#include "lib/runtime/session.h"
#include "recipes/shell_command.h"
#include "recipes/task_metric.h"

namespace infopt {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kEngineRounds = 3, kMostEngineRounds = 7;
constexpr double kNear = 0.1;  ///< of a limit: more rounds decide

double milliseconds_since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

Latency latency_of(double first, std::vector<double> times, int64_t batch) {
  const Summary s = summarize(std::move(times));
  return {s.median, s.p90, s.p99, first, s.count, 1, batch};
}

Sample first_sample(DataSet& data) {
  data.reset();
  Sample sample;
  if (!data.next(sample)) throw Error(ErrorKind::Malformed, "the data has no samples");
  return sample;
}

}  // namespace

Tensor valid_rows(const Tensor& t, const Sample& sample) {
  const bool padded = t.rank() > 0 && t.dim(0) > sample.valid_rows && !sample.inputs.empty() && sample.inputs.begin()->second.rank() > 0 &&
                      sample.inputs.begin()->second.dim(0) == t.dim(0) && t.dtype() != DType::String;
  return padded ? t.slice_front(0, sample.valid_rows) : t;
}

ModelFile describe_file(const std::string& path, const Model& model) {
  std::error_code error;
  ModelFile file{path, "", 0, model.graph->opset()};
  file.bytes = static_cast<int64_t>(std::filesystem::file_size(path, error));
  const auto folder = std::filesystem::path(path).parent_path();
  for (const std::string& extra : model.external_files) file.bytes += static_cast<int64_t>(std::filesystem::file_size(folder / extra, error));
  return file;
}

DataOptions data_options(const Model& model) {
  DataOptions options;
  int64_t batch = 0;  // that of the first input that has one; 0 where any leaves it open
  bool open = false;
  for (ValueId id : model.graph->inputs()) {
    const Value& v = model.graph->value(id);
    options.input_names.push_back(v.name);
    const bool needed = !v.constant.defined();
    if (needed) options.required.push_back(v.name);
    if (!v.type.has_shape) continue;
    Shape& shape = options.shapes[v.name];
    for (const Dim& d : v.type.shape) shape.push_back(d.size >= 0 ? d.size : -1);
    if (!needed || shape.empty()) continue;
    open = open || shape[0] < 0;
    if (batch == 0) batch = shape[0];
  }
  if (!open && batch > 0) options.rows_per_sample = batch;
  return options;
}

Comparison compare_models(const Graph& original, const Graph& optimized, DataSet& data, const EvalSpec& eval, int threads, const Progress& progress, const std::string& data_path,
                          const std::shared_ptr<const Device>& device) {
  if (original.outputs().size() != optimized.outputs().size())
    throw Error(ErrorKind::Malformed, "the models have " + std::to_string(original.outputs().size()) + " and " + std::to_string(optimized.outputs().size()) + " outputs");
  const PartialSession first(original, {.device = device}), second(optimized, {.device = device});
  const size_t count = original.outputs().size();
  // Sums are taken in the samples' order, whatever thread ran them.
  struct Pair { std::vector<Tensor> a, b; Tensor label; };
  std::vector<OutputComparison> sums(count);
  std::unique_ptr<TaskMetric> metric = make_metric(eval, original, data, data_path);
  auto compared = [&](size_t i) { return first.computes(original.outputs()[i]) && second.computes(optimized.outputs()[i]); };
  if (!first.obstacles().empty() || !second.obstacles().empty()) metric.reset();
  std::map<int64_t, Pair> waiting;
  int64_t next = 0, done = 0;
  std::mutex reading, merging;
  data.reset();
  parallel_for(data.size(), threads, [&](int64_t, int) {
    Sample sample;
    {
      std::lock_guard lock(reading);
      if (!data.next(sample)) throw Error(ErrorKind::Malformed, "the data has fewer samples than it says");
    }
    Pair pair;
    try {
      pair = {first.run(sample.inputs), second.run(sample.inputs), sample.label};
    } catch (const Error& e) {
      throw e.within(sample.where);
    }
    for (auto* list : {&pair.a, &pair.b})
      for (Tensor& t : *list)
        if (t.defined()) t = valid_rows(t, sample);
    if (pair.label.defined() && pair.label.rank() > 0 && pair.label.dim(0) > sample.valid_rows) pair.label = pair.label.slice_front(0, sample.valid_rows);
    std::lock_guard lock(merging);
    waiting.emplace(sample.index, std::move(pair));
    for (auto it = waiting.begin(); it != waiting.end() && it->first == next; it = waiting.erase(it), ++next) {
      for (size_t i = 0; i < count; ++i)
        if (compared(i) && it->second.a[i].dtype() != DType::String) sums[i].add(it->second.a[i], it->second.b[i]);
      if (metric) metric->add(it->second.a, it->second.b, it->second.label);
    }
    ++done;
    if (progress) progress(done, data.size());
  });
  Comparison out;
  out.samples = data.size();
  out.obstacles = first.obstacles().empty() ? second.obstacles() : first.obstacles();
  for (size_t i = 0; i < count; ++i) {
    const std::string& name = original.value(original.outputs()[i]).name;
    if (compared(i)) {
      out.outputs.push_back(sums[i].result(name));
      if (std::string text = sums[i].differing(name); !text.empty()) out.differing.push_back(std::move(text));
    } else out.not_compared.push_back("'" + name + "'");
  }
  if (metric) out.metrics.push_back(metric->result());
  return out;
}

std::optional<int64_t> measure_peak_memory(const std::string& path, DataSet& data) {
  const Sample sample = first_sample(data);
  trim_memory();
  ::malloc_trim(0);
  if (!reset_peak_memory()) return {};
  const auto before = resident_memory();
  const Model model = read_model(path);
  const Session session(*model.graph);
  session.run(sample.inputs);
  const auto peak = peak_memory();
  if (!before || !peak) return {};
  return std::max<int64_t>(0, *peak - *before);
}

double ask_engine(const std::string& command, const std::string& model) {
  const double ms = run_number_command(replaced(command, "{model}", shell_word(model)), "the engine's");
  if (!(ms > 0)) throw Error(ErrorKind::Usage, "the engine's command printed " + std::to_string(ms) + ", a time above 0 was expected", command);
  return ms;
}

LatencyPair ask_engine(const std::string& command, const std::string& original, const std::string& optimized, const std::vector<double>& limits) {
  std::vector<double> times[2];
  double ratio = 0;
  auto near = [&](double limit) { return std::abs(ratio / limit - 1) < kNear; };
  for (int64_t r = 0; r < kEngineRounds || (r < kMostEngineRounds && std::any_of(limits.begin(), limits.end(), near)); ++r) {
    times[0].push_back(ask_engine(command, original));
    try {
      times[1].push_back(ask_engine(command, optimized));
    } catch (const Error& e) {
      throw Error(ErrorKind::Unsupported, std::string("the engine can't run what the recipe makes: ") + e.what());
    }
    ratio = summarize(times[1]).median / summarize(times[0]).median;
  }
  LatencyPair pair;
  for (int m : {0, 1}) {
    const Summary s = summarize(times[m]);
    Latency& l = m == 0 ? pair.original : pair.optimized;
    l.median_ms = s.median, l.p90_ms = s.p90, l.p99_ms = s.p99, l.first_run_ms = times[m].front(), l.runs = s.count;
  }
  return pair;
}

LatencyPair measure_latency(const Graph& original, const Graph& optimized, DataSet& data, int64_t runs, const std::shared_ptr<const Device>& device) {
  const Sample sample = first_sample(data);
  const Session sessions[2] = {Session(original, {.device = device}), Session(optimized, {.device = device})};
  double first[2] = {0, 0};
  std::vector<double> times[2];
  for (int64_t r = -3; r < runs; ++r)
    for (int m : {0, 1}) {
      const auto start = Clock::now();
      sessions[m].run(sample.inputs);
      const double ms = milliseconds_since(start);
      if (r == -3) first[m] = ms;
      if (r >= 0) times[m].push_back(ms);
    }
  const int64_t batch = std::max<int64_t>(1, sample.valid_rows);
  return {latency_of(first[0], std::move(times[0]), batch), latency_of(first[1], std::move(times[1]), batch)};
}

}  // namespace infopt
