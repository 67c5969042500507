#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "lib/report/format.h"
#include "tools/bench.h"

namespace infopt {
namespace {

using Json = nlohmann::ordered_json;

/// Four digits after the point are 0.1 µs.
double rounded(double value) { return std::round(value * 1e4) / 1e4; }
long long whole(int64_t value) { return value; }

void put_latency(Json& to, const Summary& s) {
  to["mean_ms"] = rounded(s.mean);
  to["min_ms"] = rounded(s.min);
  to["median_ms"] = rounded(s.median);
  to["p90_ms"] = rounded(s.p90);
  to["p99_ms"] = rounded(s.p99);
  to["max_ms"] = rounded(s.max);
}

Json batch_json(const BatchFigures& b) {
  Json j{{"batch", b.batch}, {"runs", b.loop.latency.count}, {"first_run_ms", rounded(b.loop.first_ms)}};
  put_latency(j, b.loop.latency);
  if (b.device) j["device_median_ms"] = rounded(b.device->median);
  j["items_per_second"] = rounded(b.items_per_second);
  if (b.gain) j["gain_per_doubling"] = rounded(*b.gain);
  return j;
}

Json load_json(const LoadFigures& f) {
  const OpenLoopResult& r = f.result;
  Json j{
      {"rate", f.rate},     {"largest_batch", f.largest_batch},        {"items_per_request", f.items_per_request}, {"requests", r.requests},
      {"served", r.served}, {"offered_rate", rounded(r.offered_rate)}, {"achieved_rate", rounded(r.achieved_rate)}};
  put_latency(j, r.latency);
  j.update(Json{{"mean_wait_ms", rounded(r.mean_wait_ms)},
                {"mean_batch", rounded(r.mean_batch)},
                {"mean_queue", rounded(r.mean_queue)},
                {"max_queue", r.max_queue},
                {"utilization", rounded(r.utilization)},
                {"saturated", r.saturated}});
  return j;
}

Json row_json(const ProfileRow& row) {
  Json j{{"op", format::utf8(row.op)}};
  if (!row.name.empty()) j["node"] = format::utf8(row.name);
  if (!row.kernel.empty()) j["kernel"] = format::utf8(row.kernel);
  j.update(Json{{"ms", rounded(row.ms)}, {"calls", rounded(row.calls)}, {"share", rounded(row.share)}});
  return j;
}

Json profile_json(const RunProfile& p, size_t top) {
  Json j{{"run_ms", rounded(p.run_ms)}, {"nodes_ms", rounded(p.nodes_ms)}, {"operators", Json::array()}, {"nodes", Json::array()}};
  for (const ProfileRow& row : p.operators) j["operators"].push_back(row_json(row));
  for (size_t i = 0; i < std::min(top, p.nodes.size()); ++i) j["nodes"].push_back(row_json(p.nodes[i]));
  return j;
}

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

void print_batches(const BenchOptions& o, const BenchReport& r) {
  const bool curve = r.batches.size() > 1;
  std::printf("%6s %8s %11s %11s %11s %11s %12s%s\n", "batch", "runs", "mean, ms", "median, ms", "P90, ms", "P99, ms", "items/s",
              curve ? "  gain a doubling" : "");
  for (const BatchFigures& b : r.batches) {
    const Summary& s = b.loop.latency;
    std::printf("%6lld %8lld %11.3f %11.3f %11.3f %11.3f %12.1f", whole(b.batch), whole(s.count), s.mean, s.median, s.p90, s.p99,
                b.items_per_second);
    if (b.gain) std::printf("  %+14.1f %%", 100 * *b.gain);
    std::printf("%s\n", r.knee == b.batch ? "  <- knee" : "");
  }
  for (const BatchFigures& b : r.batches)
    if (b.device) std::printf("batch %lld on the device alone, without the copies to it and back: median %.3f ms\n", whole(b.batch), b.device->median);
  if (r.knee)
    std::printf("\nThe knee is at batch %lld: %s.\n", whole(*r.knee),
                *r.knee == r.batches.back().batch ? "every step gained 10 % or more a doubling; larger ones may gain too"
                                                  : "the next step gains less than 10 % a doubling");
  if (!o.latency_target_ms) return;
  if (r.within_target) std::printf("P99 within %g ms: batch %lld is the largest.\n", *o.latency_target_ms, whole(*r.within_target));
  else std::printf("P99 within %g ms: none of these batches.\n", *o.latency_target_ms);
}

void print_loads(const BenchOptions& o, const BenchReport& r) {
  std::printf("\nopen loop: %s arrivals, %g s each, batches of at most %lld, waiting at most %g ms; latency from the scheduled arrival\n\n",
              o.arrivals == "poisson" ? "Poisson" : "evenly spaced", o.duration, whole(r.loads.front().largest_batch), o.max_wait_ms);
  std::printf("%9s %9s %11s %11s %11s %11s %8s %8s %7s %6s\n", "rate, /s", "achieved", "mean, ms", "median, ms", "P90, ms", "P99, ms",
              "queue", "longest", "batch", "busy");
  for (const LoadFigures& f : r.loads) {
    const OpenLoopResult& x = f.result;
    std::printf("%9g %9.1f %11.3f %11.3f %11.3f %11.3f %8.2f %8lld %7.2f %5.0f%%%s\n", f.rate, x.achieved_rate, x.latency.mean,
                x.latency.median, x.latency.p90, x.latency.p99, x.mean_queue, whole(x.max_queue), x.mean_batch, 100 * x.utilization,
                x.saturated ? "  saturated: the queue grew" : "");
  }
}

void print_rows(const char* title, const std::vector<ProfileRow>& rows, size_t most) {
  std::printf("\n%10s %8s %7s  %s\n", "ms a run", "calls", "share", title);
  for (size_t i = 0; i < std::min(most, rows.size()); ++i) {
    const ProfileRow& row = rows[i];
    std::printf("%10.4f %8g %6.1f%%  %s", row.ms, row.calls, 100 * row.share, format::utf8(row.op).c_str());
    if (!row.name.empty()) std::printf("  %s", format::utf8(row.name).c_str());
    if (!row.kernel.empty()) std::printf("  (%s)", format::utf8(row.kernel).c_str());
    std::printf("\n");
  }
  if (rows.size() > most) std::printf("and %zu more\n", rows.size() - most);
}

Json gpu_json(const GpuFigures& g) {
  Json j{{"name", format::utf8(g.name)}};
  if (g.utilization) j["utilization_percent"] = rounded(*g.utilization);
  if (g.memory_peak) j["memory_peak_bytes"] = *g.memory_peak, j["memory_total_bytes"] = *g.memory_total;
  if (g.clock_low) j["clock_mhz"] = {*g.clock_low, *g.clock_high};
  return j;
}

void print_gpu(const GpuFigures& g) {
  std::printf("%s:", format::utf8(g.name.empty() ? "GPU" : g.name).c_str());
  if (g.utilization) std::printf(" busy %.0f %% of the time;", *g.utilization);
  if (g.memory_peak) std::printf(" %s of %s in use at most;", format::bytes(*g.memory_peak).c_str(), format::bytes(*g.memory_total).c_str());
  if (g.clock_low) std::printf(" clock %lld to %lld MHz", whole(*g.clock_low), whole(*g.clock_high));
  std::printf("\n\n");
}

}  // namespace

void print_bench_json(const BenchOptions& o, const BenchReport& r) {
  Json j{{"model", format::utf8(o.model)},
         {"input", o.inputs.file.empty() ? "made up" : format::utf8(o.inputs.file)},
         {"device", format::utf8(r.device)},
         {"threads", o.threads},
         {"streams", o.loop.streams},
         {"load_ms", rounded(r.read_ms + r.prepare_ms)},
         {"read_ms", rounded(r.read_ms)},
         {"prepare_ms", rounded(r.prepare_ms)},
         {"first_run_ms", rounded(r.batches.front().loop.first_ms)},
         {"memory_before_bytes", or_null(r.memory_before)},
         {"memory_peak_bytes", or_null(r.memory_peak)},
         {"batches", Json::array()}};
  for (const BatchFigures& b : r.batches) j["batches"].push_back(batch_json(b));
  if (r.knee) j["knee"] = {{"batch", *r.knee}, {"least_gain_per_doubling", kLeastGain}};
  if (o.latency_target_ms) j["latency_target"] = {{"p99_ms", *o.latency_target_ms}, {"largest_batch", or_null(r.within_target)}};
  if (!r.loads.empty()) {
    j["open_loop"] = {
        {"arrivals", o.arrivals}, {"seed", o.seed}, {"seconds", o.duration}, {"max_wait_ms", o.max_wait_ms}, {"loads", Json::array()}};
    for (const LoadFigures& f : r.loads) j["open_loop"]["loads"].push_back(load_json(f));
  }
  if (r.gpu) j["gpu"] = gpu_json(*r.gpu);
  if (r.profile) j["profile"] = profile_json(*r.profile, o.top);
  std::printf("%s\n", j.dump(2).c_str());
}

void print_bench_text(const BenchOptions& o, const BenchReport& r) {
  std::printf("load %s, first run %s", format::milliseconds(r.read_ms + r.prepare_ms).c_str(),
              format::milliseconds(r.batches.front().loop.first_ms).c_str());
  if (r.memory_peak) std::printf(", peak memory %s", format::bytes(*r.memory_peak).c_str());
  std::printf("; %d thread%s a run, %d stream%s\n\n", o.threads, o.threads == 1 ? "" : "s", o.loop.streams, o.loop.streams == 1 ? "" : "s");
  if (r.device != "cpu") std::printf("on %s\n\n", format::utf8(r.device).c_str());
  if (r.gpu) print_gpu(*r.gpu);
  print_batches(o, r);
  if (!r.loads.empty()) print_loads(o, r);
  if (!r.profile) return;
  std::printf("\nprofile of batch %lld: %.4f ms a run, %.4f of it in nodes\n", whole(r.batches.front().batch), r.profile->run_ms,
              r.profile->nodes_ms);
  print_rows("operator", r.profile->operators, r.profile->operators.size());
  print_rows("operator, node", r.profile->nodes, o.top);
}

}  // namespace infopt
