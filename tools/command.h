// Subcommands of infopt: each adds itself to the command line, and says what to run when it is chosen. One file each.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "recipes/job.h"
#include "tools/device.h"

namespace infopt {

/// What every subcommand may use.
struct Context {
  std::vector<std::string> command_line;
  int exit_code = 0;
};

void add_quantize(CLI::App& app, Context& context);
void add_optimize(CLI::App& app, Context& context);
void add_calibrate(CLI::App& app, Context& context);
void add_sensitivity(CLI::App& app, Context& context);
void add_prune(CLI::App& app, Context& context);
void add_tune(CLI::App& app, Context& context);
void add_run(CLI::App& app, Context& context);
void add_validate(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);
void add_inspect(CLI::App& app, Context& context);
void add_recipe(CLI::App& app, Context& context);
void add_passes(CLI::App& app, Context& context);

/// Options that the subcommands with a recipe share.
struct JobOptions {
  std::string model, output, calibration, evaluation, report, recipe, target, statistics, engine;
  DeviceChoice device;
  std::vector<std::string> sets;
  int threads = 0;
  double seconds = 0;
  int64_t samples = 0, batch = 1;
  bool json = false, no_output_on_failure = false, check_passes = false;
};
void add_job_options(CLI::App& command, JobOptions& options, bool needs_output);
/// The job that the options ask for, with the recipe read. `otherwise` is the recipe where none is named.
JobSpec job_of(const JobOptions& options, const std::string& command, const Context& context, const std::string& otherwise);
/// Prints the report (text, or JSON) and returns the exit code: 8 where a gate isn't met.
int print_report(const Report& report, bool json);
/// Progress on stderr: a line that renews itself on a terminal; otherwise plain lines, one when a stage ends and one every half minute before.
/// Nothing where `quiet`.
StageProgress progress_printer(bool quiet);

}  // namespace infopt
