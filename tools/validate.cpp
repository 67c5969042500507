#include <cstdio>
#include <memory>

#include "lib/base/threads.h"
#include "lib/onnx/import.h"
#include "lib/report/render.h"
#include "recipes/file_layers.h"
#include "recipes/measure.h"
#include "recipes/version.h"
#include "tools/command.h"

namespace infopt {
namespace {

struct ValidateOptions {
  std::string original, optimized, data, recipe = "int8";
  DeviceChoice device;
  std::vector<std::string> sets;
  int threads = 0;
  int64_t samples = 0;
  bool json = false;
};

int validate(const ValidateOptions& o, const Context& context) {
  const auto device = open_device(o.device);
  const Recipe recipe = load_recipe(o.recipe, vocabulary(), o.sets);
  const Model original = read_model(o.original), optimized = read_model(o.optimized);
  const auto data = open_data(o.data, original, recipe, o.samples);
  const int threads = o.threads > 0 ? o.threads : hardware_threads();
  const auto show = progress_printer(o.json);
  const Comparison c = compare_models(*original.graph, *optimized.graph, *data, recipe.eval, threads, show ? Progress([&](int64_t done, int64_t total) { show("compare", done, total, "samples"); }) : Progress{}, o.data, device);
  Report report;
  report.infopt_version = kVersion;
  report.command = "validate";
  report.command_line = context.command_line;
  report.target = recipe.target;
  report.device = device_text(device);
  report.recipe = to_yaml(recipe);
  report.original = describe_file(o.original, original);
  report.optimized = describe_file(o.optimized, optimized);
  report.outputs = c.outputs;
  report.metrics = c.metrics;
  report.compared_data = o.data;
  report.compared_samples = c.samples;
  report.layers = layers_of_file(*optimized.graph, *data);
  report.warnings.insert(report.warnings.end(), c.differing.begin(), c.differing.end());
  if (!c.not_compared.empty()) report.warnings.push_back("not compared: " + listed(c.not_compared) + ", because " + listed(c.obstacles));
  const bool whole = c.obstacles.empty();
  if (whole && needs(recipe.gates, GateNeed::Memory)) {
    report.measured.original_peak_memory = measure_peak_memory(o.original, *data);
    report.measured.optimized_peak_memory = measure_peak_memory(o.optimized, *data);
  }
  if (whole && needs(recipe.gates, GateNeed::Latency)) {
    const LatencyPair l = measure_latency(*original.graph, *optimized.graph, *data, 20, device);
    report.measured.original_latency = l.original;
    report.measured.optimized_latency = l.optimized;
  }
  report.gates = evaluate_gates(recipe.gates, report);
  return print_report(report, o.json);
}

}  // namespace

void add_validate(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("validate", "Compare a model with the original, and judge the recipe's gates");
  const auto o = std::make_shared<ValidateOptions>();
  command->add_option("original", o->original, "the original model")->required()->type_name("MODEL.onnx");
  command->add_option("optimized", o->optimized, "the model to judge")->required()->type_name("OUT.onnx");
  command->add_option("--data,--eval", o->data, "data to compare on, with labels for a metric")->required()->type_name("DATA");
  command->add_option("--recipe", o->recipe, "its data, eval and gates")->type_name("RECIPE");
  command->add_option("--set", o->sets, "change the recipe")->type_name("PATH=VALUE");
  command->add_option("--threads", o->threads, "threads")->check(CLI::PositiveNumber)->type_name("N");
  command->add_option("--samples", o->samples, "at most so many samples")->check(CLI::PositiveNumber)->type_name("N");
  add_device_options(*command, o->device);
  command->add_flag("--json", o->json, "print the report as JSON");
  command->callback([o, &context] { context.exit_code = validate(*o, context); });
}

}  // namespace infopt
