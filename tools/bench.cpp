#include "tools/bench.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>

#include "lib/base/atomic_file.h"
#include "lib/base/error.h"
#include "lib/base/process_memory.h"
#include "lib/bench/knee.h"
#include "lib/bench/trace.h"
#include "lib/onnx/import.h"
#include "tools/command.h"

namespace infopt {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double kMostRequests = 1e7;
constexpr int64_t kTracedRuns = 3;

CLI::Validator number_check(const char* what, bool (*good)(double)) {
  return CLI::Validator(
      [=](std::string& text) {
        double value = 0;
        return CLI::detail::lexical_cast(text, value) && good(value) ? std::string() : "'" + text + "' isn't " + what;
      },
      "");
}
CLI::Validator positive() {
  return number_check("a positive number", [](double v) { return v > 0 && v < 1e15; });
}
CLI::Validator not_negative() {
  return number_check("a number from 0", [](double v) { return v >= 0 && v < 1e15; });
}

double milliseconds_since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

void measure_batches(const BenchOptions& o, const Session& session, const std::vector<Inputs>& inputs, BenchReport& report) {
  std::vector<BatchPoint> points;
  for (size_t i = 0; i < o.batches.size(); ++i) {
    BatchFigures f{o.batches[i], measure_closed_loop(o.loop, [&](int) { session.run(inputs[i]); }), 0, {}, {}};
    const std::vector<float> device = session.device_times();
    if (!device.empty()) f.device = summarize(std::vector<double>(device.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(device.size() - 1, static_cast<size_t>(o.loop.warmup))), device.end()));
    f.items_per_second = f.loop.runs_per_second * static_cast<double>(f.batch);
    const double typical = f.loop.latency.median > 0 ? 1e3 * static_cast<double>(f.batch * o.loop.streams) / f.loop.latency.median : 0;
    points.push_back({f.batch, typical, f.loop.latency.p99});  // by medians: pauses of a busy machine say nothing of the batch
    if (i > 0) f.gain = gain_per_doubling(points[i - 1], points[i]);
    report.batches.push_back(f);
  }
  report.knee = find_knee(points, kLeastGain);
  if (o.latency_target_ms) report.within_target = largest_within(points, *o.latency_target_ms);
}

/// A request is one item, or a whole batch where the model's is fixed.
void measure_loads(const BenchOptions& o, const Session& session, const BenchInputs& source, BenchReport& report) {
  const int64_t fixed = source.fixed_batch();
  const std::vector<Inputs> inputs = source.make_up_to(o.batches.back());
  for (const Inputs& some : inputs)
    for (int i = 0; i < 2; ++i) session.run(some);
  SteadyLoadClock clock;
  for (double rate : o.rates) {
    const OpenLoopOptions options{static_cast<int64_t>(inputs.size()), o.max_wait_ms / 1e3, o.duration};
    const auto serve = [&](int64_t count) { session.run(inputs[static_cast<size_t>(count - 1)]); };
    report.loads.push_back(
        {rate, options.batch, std::max<int64_t>(1, fixed),
         run_open_loop(make_arrivals(o.arrivals == "fixed" ? Arrivals::Fixed : Arrivals::Poisson, rate, o.duration, o.seed), options, clock,
                       serve)});
  }
}

RunProfile measure_profile(const BenchOptions& o, const Graph& graph, SessionOptions options, const Inputs& inputs) {
  options.profile = true;
  const Session session(graph, options);
  session.run(inputs);
  for (int64_t i = 0; i < o.loop.warmup; ++i) session.run(inputs);
  std::map<NodeId, Session::NodeTime> sums;
  const auto add = [&](int sign) {
    for (const auto& t : session.profile()) {
      auto& sum = sums.try_emplace(t.node, Session::NodeTime{t.node, 0, 0, t.covers, t.kernel}).first->second;
      sum.milliseconds += sign * t.milliseconds;
      sum.calls += sign * t.calls;
    }
  };
  add(-1);
  const auto start = Clock::now();
  int64_t runs = 0;
  while (o.loop.runs > 0 ? runs < o.loop.runs : runs < o.loop.min_runs || milliseconds_since(start) < 1e3 * o.loop.seconds) {
    session.run(inputs);
    ++runs;
  }
  const double seconds = milliseconds_since(start) / 1e3;
  add(1);
  std::vector<Session::NodeTime> times;
  for (const auto& [node, sum] : sums) times.push_back(sum);
  return make_profile(graph, times, runs, seconds);
}

void write_trace(const BenchOptions& o, const Graph& graph, SessionOptions options, const Inputs& inputs) {
  options.trace = true;
  const Session session(graph, options);
  for (int64_t i = 0; i <= o.loop.warmup; ++i) session.run(inputs);
  const size_t warm = session.events().size();
  run_streams(o.loop.streams, [&](int) {
    for (int64_t i = 0; i < kTracedRuns; ++i) session.run(inputs);
  });
  auto events = session.events();
  events.erase(events.begin(), events.begin() + static_cast<std::ptrdiff_t>(warm));
  write_file(o.trace, chrome_trace(graph, events));
}

void bench(BenchOptions& o) {
  if (!o.trace.empty()) check_writable(o.trace);
  BenchReport report;
  report.memory_before = resident_memory();
  auto start = Clock::now();
  const Model model = read_model(o.model);
  report.read_ms = milliseconds_since(start);
  const BenchInputs source(model, o.inputs);
  if (o.batches.empty()) o.batches = {std::max<int64_t>(1, source.fixed_batch())};
  std::sort(o.batches.begin(), o.batches.end());
  o.batches.erase(std::unique(o.batches.begin(), o.batches.end()), o.batches.end());
  std::vector<Inputs> inputs;
  for (int64_t batch : o.batches) inputs.push_back(source.make(batch));
  SessionOptions options;
  options.threads = o.threads;
  options.device = open_device(o.device);
  options.time_device = options.device != nullptr;
  report.device = device_text(options.device);
  {
    start = Clock::now();
    const Session session(*model.graph, options);
    report.prepare_ms = milliseconds_since(start);
    const auto monitor = options.device ? GpuMonitor::start(options.device->bus_id()) : nullptr;
    measure_batches(o, session, inputs, report);
    if (monitor) report.gpu = monitor->stop();
    report.memory_peak = peak_memory();
    if (!o.rates.empty()) measure_loads(o, session, source, report);
  }
  if (o.profile) report.profile = measure_profile(o, *model.graph, options, inputs.front());
  if (!o.trace.empty()) write_trace(o, *model.graph, options, inputs.front());
  o.json ? print_bench_json(o, report) : print_bench_text(o, report);
}

void check_rates(const BenchOptions& o) {
  for (double rate : o.rates)
    if (rate * o.duration > kMostRequests)
      throw Error(ErrorKind::Usage, "more than 10,000,000 requests: lower the rate or --duration", "--rate");
}

void add_load_options(CLI::App& command, BenchOptions& o) {
  const char* group = "Open loop";
  auto* rate = command.add_option("--rate", o.rates,
                                  "requests a second, each rate a loop of its own; --batch's largest is the most that are served together");
  rate->delimiter(',')->allow_extra_args(false)->check(positive())->type_name("R,…")->group(group);
  command.add_option("--arrivals", o.arrivals, "poisson (the default) or fixed, evenly spaced")
      ->check(CLI::IsMember({"poisson", "fixed"}))
      ->type_name("KIND")
      ->needs(rate)
      ->group(group);
  command.add_option("--max-wait", o.max_wait_ms, "how long a request may wait for its batch to fill; 0 without")
      ->check(not_negative())
      ->type_name("MS")
      ->needs(rate)
      ->group(group);
  command.add_option("--duration", o.duration, "seconds over which requests come; 5 without")
      ->check(positive())
      ->type_name("S")
      ->needs(rate)
      ->group(group);
  command.add_option("--seed", o.seed, "of the Poisson arrivals; 1 without")->type_name("N")->needs(rate)->group(group);
}

}  // namespace

void add_bench(CLI::App& app, Context&) {
  auto* command = app.add_subcommand(
      "bench", "Measure a model in infopt's runtime: latency, throughput, memory, by batch size, by operator, under load");
  const auto o = std::make_shared<BenchOptions>();
  command->add_option("model", o->model, "the ONNX model")->required()->type_name("MODEL.onnx");
  auto* input = command->add_option("--input,--data", o->inputs.file, "the inputs, whose first rows are used; without it they are made up")
                    ->type_name("DATA");
  command->add_option("--shape", o->inputs.shapes, "a made-up input's shape, as in x=B,3,48,192; B is the batch")
      ->allow_extra_args(false)
      ->type_name("NAME=DIMS")
      ->excludes(input);
  command->add_option("--dim", o->inputs.dims, "the size of a symbolic dimension of made-up inputs")
      ->allow_extra_args(false)
      ->type_name("SYMBOL=N")
      ->excludes(input);
  command->add_option("--batch", o->batches, "batch sizes, as in 1,8,32: with several, the gain of each and the knee")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(positive())
      ->type_name("N,…");
  command->add_option("--latency-target", o->latency_target_ms, "name the largest batch whose P99 is within it")
      ->check(positive())
      ->type_name("MS");
  command->add_option("--threads", o->threads, "threads of one run; 1 without")->check(CLI::Range(1, 1024))->type_name("N");
  command->add_option("--streams", o->loop.streams, "runs side by side; 1 without")->check(CLI::Range(1, 1024))->type_name("N");
  command->add_option("--warmup", o->loop.warmup, "runs that don't count, after the first; 3 without")
      ->check(not_negative())
      ->type_name("N");
  auto* runs = command->add_option("--runs", o->loop.runs, "counted runs of each stream")->check(positive())->type_name("N");
  command->add_option("--seconds", o->loop.seconds, "count runs for so long, and at least ten; 1 without --runs")
      ->check(positive())
      ->type_name("S")
      ->excludes(runs);
  add_device_options(*command, o->device);
  command->add_flag("--profile", o->profile, "time by operator and by node, of the smallest batch");
  command->add_option("--top", o->top, "most nodes that the profile lists; 15 without")->check(positive())->type_name("N");
  command->add_option("--trace", o->trace, "write a Chrome trace of three runs of the smallest batch")->type_name("OUT.json");
  command->add_flag("--json", o->json, "print JSON");
  add_load_options(*command, *o);
  command->callback([o] {
    check_rates(*o);
    bench(*o);
  });
}

}  // namespace infopt
