#include "recipes/trial.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "lib/base/error.h"
#include "lib/base/hash.h"

namespace infopt {
namespace {

constexpr double kMostDb = 300;  // what equal outputs count as

void take_figures(Trial& trial, const Report& report) {
  const auto size = size_ratio(report);
  if (!size) throw Error(ErrorKind::Defect, "a trial's sizes weren't measured");
  trial.size_ratio = *size;
  if (const auto& latency = report.measured.optimized_latency) trial.latency_ms = latency->median_ms;
  trial.latency_ratio = latency_ratio(report).value_or(0);
  for (const OutputReport& o : report.outputs)
    if (!trial.sqnr_db || o.sqnr_db < *trial.sqnr_db) trial.sqnr_db = std::min(o.sqnr_db, kMostDb);
  for (const Metric& m : report.metrics) trial.metric_drop = std::max(trial.metric_drop.value_or(m.drop()), m.drop());
  trial.violation = violation_of(report.gates);
}

}  // namespace

std::optional<Report> run_trial(Trial& trial, JobSpec job, const Recipe& recipe, const std::string& path) {
  const auto start = std::chrono::steady_clock::now();
  job.recipe = recipe;
  job.output = path;
  job.keep_output_on_failure = true;
  std::optional<Report> report;
  try {
    report = run_job(job);
    take_figures(trial, *report);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::Unsupported && e.kind() != ErrorKind::Malformed && e.kind() != ErrorKind::Limit) throw;
    trial.failure = e.what();
    report.reset();
  }
  trial.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

double violation_of(const std::vector<GateResult>& gates) {
  double sum = 0;
  for (const GateResult& g : gates) {
    if (g.passed) continue;
    sum += g.value && std::isfinite(*g.value) ? std::max(1e-6, std::fabs(*g.value - g.limit) / std::max(std::fabs(g.limit), 1e-3)) : 1e3;
  }
  return sum;
}

std::string hash_of(const Recipe& recipe) { return Hasher().text(to_yaml(recipe)).hex(); }

double noise_of(const Trial& t) { return t.sqnr_db ? std::pow(10.0, -*t.sqnr_db / 10) : 1; }

}  // namespace infopt
