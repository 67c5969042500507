#include "tools/bench.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "lib/base/error.h"
#include "lib/base/process_memory.h"
#include "lib/onnx/import.h"
#include "tools/command.h"

namespace infopt {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

/// Threads inside one run; 1 where sessions have no such option.
template <class Options>
int set_threads(Options& options, int threads) {
  if constexpr (requires { options.threads = threads; }) {
    options.threads = threads;
    return threads;
  }
  return 1;
}

void print_profile(const Model& model, const Inputs& inputs, int64_t runs) {
  SessionOptions options;
  options.profile = true;
  const Session session(*model.graph, options);
  for (int64_t r = 0; r < runs; ++r) session.run(inputs);
  std::map<std::string, std::pair<double, int64_t>> by_op;
  double total = 0;
  for (const auto& t : session.profile()) {
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

void bench(BenchOptions& o) {
  BenchReport report;
  report.memory_before = resident_memory();
  auto start = Clock::now();
  const Model model = read_model(o.model);
  report.read_ms = milliseconds_since(start);
  const BenchInputs source(model, o.inputs);
  if (o.batches.empty()) o.batches = {std::max<int64_t>(1, source.fixed_batch())};
  std::vector<Inputs> inputs;
  for (int64_t batch : o.batches) inputs.push_back(source.make(batch));
  start = Clock::now();
  SessionOptions options;
  o.threads = set_threads(options, o.threads);
  const Session session(*model.graph, options);
  report.prepare_ms = milliseconds_since(start);
  for (size_t i = 0; i < o.batches.size(); ++i) {
    BatchFigures f{o.batches[i], measure_closed_loop(o.loop, [&](int) { session.run(inputs[i]); }), 0};
    f.items_per_second = f.loop.runs_per_second * static_cast<double>(f.batch);
    report.batches.push_back(f);
  }
  report.memory_peak = peak_memory();
  o.json ? print_bench_json(o, report) : print_bench_text(o, report);
  if (o.profile && !o.json) print_profile(model, inputs[0], 20);
}

}  // namespace

void add_bench(CLI::App& app, Context&) {
  auto* command = app.add_subcommand("bench", "Measure a model in infopt's runtime");
  const auto o = std::make_shared<BenchOptions>();
  command->add_option("model", o->model, "the ONNX model")->required()->type_name("MODEL.onnx");
  auto* input = command->add_option("--input,--data", o->inputs.file, "the inputs, whose first rows are used; without it they are made up")->type_name("DATA");
  command->add_option("--shape", o->inputs.shapes, "a made-up input's shape, as in x=B,3,48,192; B is the batch")->allow_extra_args(false)->type_name("NAME=DIMS")->excludes(input);
  command->add_option("--dim", o->inputs.dims, "the size of a symbolic dimension of made-up inputs")->allow_extra_args(false)->type_name("SYMBOL=N")->excludes(input);
  command->add_option("--batch", o->batches, "batch sizes, as in 1,8,32")->delimiter(',')->allow_extra_args(false)->check(CLI::PositiveNumber)->type_name("N,…");
  command->add_option("--threads", o->threads, "threads of one run")->check(CLI::Range(1, 1024))->type_name("N");
  command->add_option("--streams", o->loop.streams, "runs side by side")->check(CLI::Range(1, 1024))->type_name("N");
  command->add_option("--warmup", o->loop.warmup, "runs that don't count, after the first")->check(CLI::NonNegativeNumber)->type_name("N");
  auto* runs = command->add_option("--runs", o->loop.runs, "counted runs")->check(CLI::PositiveNumber)->type_name("N");
  command->add_option("--seconds", o->loop.seconds, "count runs for so long, and at least ten; 1 without --runs")->check(CLI::PositiveNumber)->type_name("S")->excludes(runs);
  command->add_option("--device", o->device, "auto, cpu, cuda")->check(CLI::IsMember({"auto", "cpu", "cuda"}))->type_name("DEVICE");
  command->add_flag("--profile", o->profile, "time by operator");
  command->add_flag("--json", o->json, "print JSON");
  command->callback([o] {
    check_device(o->device);
    bench(*o);
  });
}

}  // namespace infopt
