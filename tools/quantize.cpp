#include <unistd.h>

#include <cstdio>
#include <memory>

#include "lib/base/error.h"
#include "recipes/auto.h"
#include "tools/command.h"

namespace infopt {
namespace {

std::function<void(const std::string&)> told(bool quiet) {
  if (quiet) return {};
  return [clear = ::isatty(STDERR_FILENO) != 0](const std::string& line) { std::fprintf(stderr, "%sinfopt: %s\n", clear ? "\r\033[K" : "", line.c_str()); };
}

}  // namespace

void add_quantize(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("quantize", "Quantize a model: MODEL.onnx --calib DATA -o OUT.onnx");
  const auto o = std::make_shared<JobOptions>();
  add_job_options(*command, *o, true);
  command->add_option("--eval", o->evaluation, "evaluation data, compared in full and with the recipe's metric")->type_name("DATA");
  command->add_option("--report", o->report, "folder for report.json, report.md and junit.xml")->type_name("DIR");
  command->add_option("--statistics", o->statistics, "statistics that `infopt calibrate` saved, instead of a run")->type_name("FILE");
  command->add_flag("--no-output-on-failure", o->no_output_on_failure, "no model where a gate isn't met");
  command->add_flag("--check-passes", o->check_passes, "check each pass's contract on the first sample");
  command->add_option("--engine", o->engine, "a command that prints milliseconds of {model}, for gates on latency and --recipe auto, e.g. python3 tools/engines/onnxruntime_latency.py {model}")->type_name("CMD");
  command->add_option("--seconds", o->seconds, "with --recipe auto: no attempt begins later")->check(CLI::PositiveNumber)->type_name("S");
  command->callback([o, &context] {
    const JobSpec job = job_of(*o, "quantize", context, "int8");
    if (!job.engine.empty() && job.engine.find("{model}") == std::string::npos) throw Error(ErrorKind::Usage, "the engine's command needs {model}, which becomes a model's path", job.engine);
    const bool searches = job.recipe.search == "auto";
    if (o->seconds > 0 && !searches) throw Error(ErrorKind::Usage, "--seconds is for recipes that search: --recipe auto");
    if (!o->statistics.empty() && searches) throw Error(ErrorKind::Usage, "--statistics are of one recipe's graph: they don't go with --recipe auto");
    context.exit_code = print_report(searches ? quantize_by_search({job, o->seconds, told(o->json)}) : run_job(job), o->json);
  });
}

}  // namespace infopt
