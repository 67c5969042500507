#include "recipes/tune.h"

#include <cstdio>
#include <memory>
#include <optional>

#include "lib/base/error.h"
#include "lib/report/format.h"
#include "tools/command.h"

namespace infopt {
namespace {

struct TuneCommand {
  JobOptions job;
  std::string minimize = "latency";
  std::optional<double> max_drop, min_sqnr_db, max_size_ratio, max_latency_ratio, max_ms, bits;
  double seconds = 600;
  int64_t trials = 0, seed = 1;
  bool first = false;
};

void set_gate(Recipe& recipe, const std::string& name, std::optional<double> limit) {
  if (!limit) return;
  std::erase_if(recipe.gates, [&](const GateLimit& g) { return g.name == name; });
  std::vector<GateLimit> ordered;
  for (const GateDef& d : all_gates()) {
    if (d.name == name) ordered.push_back({name, *limit});
    for (const GateLimit& g : recipe.gates)
      if (g.name == d.name) ordered.push_back(g);
  }
  recipe.gates = std::move(ordered);
}

void run(const TuneCommand& c, Context& context) {
  TuneSpec spec;
  spec.job = job_of(c.job, "tune", context, "int8");
  spec.folder = c.job.output;
  spec.job.output.clear();
  Recipe& recipe = spec.job.recipe;
  set_gate(recipe, "max_metric_drop", c.max_drop);
  set_gate(recipe, "min_sqnr_db", c.min_sqnr_db);
  set_gate(recipe, "max_size_ratio", c.bits ? std::optional(std::min(*c.bits / 32, c.max_size_ratio.value_or(1))) : c.max_size_ratio);
  set_gate(recipe, "max_latency_ratio", c.max_latency_ratio);
  set_gate(recipe, "max_latency_ms", c.max_ms);
  spec.smallest = c.minimize == "size";
  spec.seconds = c.seconds;
  spec.trials = c.trials;
  spec.seed = static_cast<uint64_t>(c.seed);
  spec.stop_when_met = c.first;
  if (!c.job.json) spec.told = [](const std::string& line) { std::fprintf(stderr, "infopt: %s\n", line.c_str()); };
  const TuneResult result = tune(spec);
  if (!result.best) throw Error(ErrorKind::Unsupported, "no trial gave a model; " + spec.folder + "/trials.jsonl says why", c.job.model);
  const Trial& best = result.trials[*result.best];
  std::printf("%zu trials%s; the front:\n\n%s\n", result.trials.size(), result.resumed ? (", " + std::to_string(result.resumed) + " of them resumed").c_str() : "", front_markdown(result).c_str());
  if (best.met()) {
    std::printf("best: %s\n  %s/model.onnx, made by %s/recipe.yaml\n", words(best.point).c_str(), spec.folder.c_str(), spec.folder.c_str());
    return;
  }
  std::printf("no recipe met the targets; nearest: %s\n  %s/model.onnx, made by %s/recipe.yaml\n", words(best.point).c_str(), spec.folder.c_str(), spec.folder.c_str());
  context.exit_code = infopt::exit_code(ErrorKind::Gate);
}

}  // namespace

void add_tune(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("tune", "Search for the recipe that meets targets and is fastest or smallest: -o DIR gets the best model and its recipe");
  const auto c = std::make_shared<TuneCommand>();
  add_job_options(*command, c->job, true);
  command->add_option("--eval", c->job.evaluation, "evaluation data, compared in full and with the recipe's metric")->type_name("DATA");
  command->add_option("--max-drop", c->max_drop, "what the metric may lose, in its own unit (0.005: half a point)")->type_name("X");
  command->add_option("--min-sqnr-db", c->min_sqnr_db, "what the outputs must keep")->type_name("DB");
  command->add_option("--max-size-ratio", c->max_size_ratio, "of the original's bytes")->type_name("X");
  command->add_option("--bits-per-weight", c->bits, "the same in bits, where the original has 32")->check(CLI::PositiveNumber)->type_name("B");
  command->add_option("--max-latency-ratio", c->max_latency_ratio, "of the original's time")->type_name("X");
  command->add_option("--max-ms", c->max_ms, "milliseconds of one sample")->type_name("MS");
  command->add_option("--minimize", c->minimize, "latency or size, among those that meet the targets")->check(CLI::IsMember({"latency", "size"}));
  command->add_option("--engine", c->job.engine, "a command that prints milliseconds of {model}, e.g. python3 tools/engines/onnxruntime_latency.py {model}")->type_name("CMD");
  command->add_option("--seconds", c->seconds, "no trial begins later; 0: no limit")->check(CLI::NonNegativeNumber)->type_name("S");
  command->add_option("--trials", c->trials, "at most so many, resumed ones included; 0: no limit")->check(CLI::NonNegativeNumber)->type_name("N");
  command->add_option("--seed", c->seed, "of the search's chances")->type_name("N");
  command->add_flag("--first", c->first, "stop at the first that meets the targets");
  command->callback([c, &context] { run(*c, context); });
}

}  // namespace infopt
