#include <memory>

#include "tools/command.h"

namespace infopt {

void add_optimize(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("optimize", "Optimize a model's graph; outputs stay the same but for rounding");
  const auto o = std::make_shared<JobOptions>();
  add_job_options(*command, *o, true);
  command->add_option("--report", o->report, "folder for report.json, report.md and junit.xml")->type_name("DIR");
  command->add_flag("--check-passes", o->check_passes, "check each pass's contract on the first sample");
  command->callback([o, &context] {
    const JobSpec job = job_of(*o, "optimize", context, "optimize");
    context.exit_code = print_report(run_job(job), o->json);
  });
}

}  // namespace infopt
