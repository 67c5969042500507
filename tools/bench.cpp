#include <algorithm>
#include <cstdio>
#include <memory>

#include "lib/onnx/import.h"
#include "lib/runtime/session.h"
#include "recipes/measure.h"
#include "tools/command.h"

namespace infopt {
namespace {

struct BenchOptions {
  std::string model, data, device = "auto";
  int64_t runs = 30;
  bool profile = false, json = false;
};

void print_profile(const Model& model, DataSet& data, int64_t runs) {
  SessionOptions options;
  options.profile = true;
  const Session session(*model.graph, options);
  data.reset();
  Sample sample;
  data.next(sample);
  for (int64_t r = 0; r < runs; ++r) session.run(sample.inputs);
  auto times = session.profile();
  std::map<std::string, std::pair<double, int64_t>> by_op;
  double total = 0;
  for (const auto& t : times) {
    auto& entry = by_op[model.graph->node(t.node).op];
    entry.first += t.milliseconds;
    entry.second += t.calls;
    total += t.milliseconds;
  }
  std::vector<std::pair<std::string, std::pair<double, int64_t>>> rows(by_op.begin(), by_op.end());
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.second.first > b.second.first; });
  std::printf("%-28s %10s %10s %7s\n", "operator", "ms a run", "calls", "share");
  for (const auto& [op, entry] : rows)
    std::printf("%-28s %10.3f %10lld %6.1f%%\n", op.c_str(), entry.first / static_cast<double>(runs), static_cast<long long>(entry.second / runs), 100 * entry.first / std::max(total, 1e-9));
}

}  // namespace

void add_bench(CLI::App& app, Context&) {
  auto* command = app.add_subcommand("bench", "Measure a model's latency in infopt's runtime, one sample on one thread");
  const auto o = std::make_shared<BenchOptions>();
  command->add_option("model", o->model, "the ONNX model")->required()->type_name("MODEL.onnx");
  command->add_option("--data", o->data, "inputs; the first sample is used")->required()->type_name("DATA");
  command->add_option("--runs", o->runs, "timed runs, after three that aren't")->check(CLI::PositiveNumber)->type_name("N");
  command->add_option("--device", o->device, "auto, cpu, cuda")->check(CLI::IsMember({"auto", "cpu", "cuda"}))->type_name("DEVICE");
  command->add_flag("--profile", o->profile, "time by operator");
  command->add_flag("--json", o->json, "print JSON");
  command->callback([o] {
    check_device(o->device);
    const Model model = read_model(o->model);
    const auto data = open_dataset(o->data, data_options(model));
    const Latency l = measure_latency(*model.graph, *data, o->runs, 1);
    if (o->json)
      std::printf("{\"median_ms\": %.4f, \"p90_ms\": %.4f, \"p99_ms\": %.4f, \"first_run_ms\": %.4f, \"runs\": %lld, \"threads\": 1, \"batch\": %lld}\n", l.median_ms, l.p90_ms, l.p99_ms, l.first_run_ms, static_cast<long long>(l.runs), static_cast<long long>(l.batch));
    else
      std::printf("median %.3f ms, P90 %.3f, P99 %.3f; first run %.3f; %lld runs, 1 thread, batch %lld\n", l.median_ms, l.p90_ms, l.p99_ms, l.first_run_ms, static_cast<long long>(l.runs), static_cast<long long>(l.batch));
    if (o->profile && !o->json) print_profile(model, *data, o->runs);
  });
}

}  // namespace infopt
