#include <memory>

#include "lib/base/error.h"
#include "tools/command.h"

namespace infopt {

void add_prune(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("prune", "Prune a model: MODEL.onnx --recipe magnitude-50 -o OUT.onnx");
  const auto o = std::make_shared<JobOptions>();
  add_job_options(*command, *o, true);
  command->add_option("--eval", o->evaluation, "evaluation data, compared in full and with the recipe's metric")->type_name("DATA");
  command->add_option("--report", o->report, "folder for report.json, report.md and junit.xml: what went of each layer, FLOPs, parameters and time before and after")->type_name("DIR");
  command->add_flag("--no-output-on-failure", o->no_output_on_failure, "no model where a gate isn't met");
  command->add_flag("--check-passes", o->check_passes, "check each pass's contract on the first sample");
  command->callback([o, &context] {
    const JobSpec job = job_of(*o, "prune", context, "magnitude-50");
    if (!prunes(job.recipe)) throw Error(ErrorKind::Usage, "the recipe " + job.recipe.name + " has no step that prunes; infopt quantize or infopt optimize runs it");
    context.exit_code = print_report(run_job(job), o->json);
  });
}

}  // namespace infopt
