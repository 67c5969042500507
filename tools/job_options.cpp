// What the subcommands with a recipe share: their options, progress, and the end of a run.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <utility>

#include "lib/base/error.h"
#include "lib/base/threads.h"
#include "lib/report/render.h"
#include "passes/profile.h"
#include "tools/command.h"

namespace infopt {
namespace {

constexpr double kQuietSeconds = 30;  // between two lines of one stage where stderr is no terminal

}  // namespace

void add_job_options(CLI::App& command, JobOptions& o, bool needs_output) {
  command.add_option("model", o.model, "the ONNX model")->required()->type_name("MODEL.onnx");
  auto* out = command.add_option("-o,--output", o.output, "where the result goes")->type_name("PATH");
  if (needs_output) out->required();
  command.add_option("--calib", o.calibration, "calibration data: .npz, .npy, a folder of them, of ONNX test data, or of images")->type_name("DATA");
  command.add_option("--recipe", o.recipe, "a built-in recipe's name, or a path")->type_name("RECIPE");
  command.add_option("--set", o.sets, "change the recipe: path=value, e.g. calibrate.method=entropy")->type_name("PATH=VALUE");
  command.add_option("--target", o.target, "ort-cpu, tensorrt, generic")->type_name("TARGET");
  command.add_option("--samples", o.samples, "use at most so many calibration samples")->check(CLI::PositiveNumber)->type_name("N");
  command.add_option("--batch", o.batch, "samples taken from the data at once; the result doesn't depend on it")->check(CLI::PositiveNumber)->type_name("B");
  command.add_option("--threads", o.threads, "threads; the result doesn't depend on it (default: all)")->check(CLI::PositiveNumber)->type_name("N");
  add_device_options(command, o.device);
  command.add_flag("--json", o.json, "print the report as JSON");
}

JobSpec job_of(const JobOptions& o, const std::string& command, const Context& context, const std::string& otherwise) {
  JobSpec job;
  job.device = open_device(o.device);
  job.device_name = device_text(job.device);
  job.command = command;
  job.command_line = context.command_line;
  job.model = o.model;
  job.output = o.output;
  job.calibration_data = o.calibration;
  job.evaluation_data = o.evaluation;
  job.statistics = o.statistics;
  job.engine = o.engine;
  job.report_folder = o.report;
  job.threads = o.threads > 0 ? o.threads : hardware_threads();
  job.samples = o.samples;
  job.check_contracts = o.check_passes;
  job.keep_output_on_failure = !o.no_output_on_failure;
  std::vector<std::string> sets = o.sets;
  if (!o.target.empty()) {
    find_profile(o.target);
    sets.push_back("target=" + o.target);
  }
  job.recipe = load_recipe(o.recipe.empty() ? otherwise : o.recipe, vocabulary(), sets);
  job.progress = progress_printer(o.json);
  return job;
}

int print_report(const Report& report, bool json) {
  std::fputs((json ? render_json(report) : render_text(report)).c_str(), stdout);
  for (const GateResult& g : report.gates)
    if (!g.passed) return infopt::exit_code(ErrorKind::Gate);
  return 0;
}

StageProgress progress_printer(bool quiet) {
  if (quiet) return {};
  using Clock = std::chrono::steady_clock;
  struct State {
    bool terminal = ::isatty(STDERR_FILENO) != 0;
    std::string stage;
    Clock::time_point start, called, printed;
  };
  const auto state = std::make_shared<State>();
  return [state](const std::string& stage, int64_t done, int64_t total, const std::string& units) {
    const auto now = Clock::now(), before = std::exchange(state->called, now);
    if (stage + units != state->stage) {  // the first step began where what was told before ended
      state->stage = stage + units;
      state->start = state->printed = total > 0 && before != Clock::time_point() ? before : now;
    }
    const auto seconds = [&](Clock::time_point from) { return std::chrono::duration<double>(now - from).count(); };
    const auto steps = static_cast<long long>(done), all = static_cast<long long>(total);
    const double left = seconds(state->start) / static_cast<double>(std::max<int64_t>(done, 1)) * static_cast<double>(total - done);
    if (state->terminal) {
      std::fprintf(stderr, "\r\033[K%s", stage.c_str());
      if (total > 0) std::fprintf(stderr, ": %lld of %lld %s, %.0f s left", steps, all, units.c_str(), left);
      if (total > 0 ? done == total : stage == "read back") std::fputs("\r\033[K", stderr);
      std::fflush(stderr);
    } else if (total > 0 && done == total) {
      std::fprintf(stderr, "infopt: %s: %lld %s in %.1f s\n", stage.c_str(), all, units.c_str(), seconds(state->start));
    } else if (total > 0 && seconds(state->printed) >= kQuietSeconds) {
      state->printed = now;
      std::fprintf(stderr, "infopt: %s: %lld of %lld %s, %.0f s left\n", stage.c_str(), steps, all, units.c_str(), left);
    }
  };
}

}  // namespace infopt
