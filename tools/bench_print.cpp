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
  j["items_per_second"] = rounded(b.items_per_second);
  return j;
}

}  // namespace

void print_bench_json(const BenchOptions& o, const BenchReport& r) {
  Json j{{"model", format::utf8(o.model)},
         {"device", "cpu"},
         {"threads", o.threads},
         {"streams", o.loop.streams},
         {"load_ms", rounded(r.read_ms + r.prepare_ms)},
         {"read_ms", rounded(r.read_ms)},
         {"prepare_ms", rounded(r.prepare_ms)}};
  if (!r.batches.empty()) j["first_run_ms"] = rounded(r.batches.front().loop.first_ms);
  if (r.memory_before) j["memory_before_bytes"] = *r.memory_before;
  if (r.memory_peak) j["memory_peak_bytes"] = *r.memory_peak;
  for (const BatchFigures& b : r.batches) j["batches"].push_back(batch_json(b));
  std::printf("%s\n", j.dump(2).c_str());
}

void print_bench_text(const BenchOptions& o, const BenchReport& r) {
  std::printf("load %s", format::milliseconds(r.read_ms + r.prepare_ms).c_str());
  if (!r.batches.empty()) std::printf(", first run %s", format::milliseconds(r.batches.front().loop.first_ms).c_str());
  if (r.memory_peak) std::printf(", peak memory %s", format::bytes(*r.memory_peak).c_str());
  std::printf("; %d thread%s, %d stream%s\n\n", o.threads, o.threads == 1 ? "" : "s", o.loop.streams, o.loop.streams == 1 ? "" : "s");
  std::printf("%6s %8s %11s %11s %11s %11s %12s\n", "batch", "runs", "mean, ms", "median, ms", "P90, ms", "P99, ms", "items/s");
  for (const BatchFigures& b : r.batches) {
    const Summary& s = b.loop.latency;
    std::printf("%6lld %8lld %11.3f %11.3f %11.3f %11.3f %12.1f\n", static_cast<long long>(b.batch), static_cast<long long>(s.count), s.mean, s.median, s.p90, s.p99, b.items_per_second);
  }
}

}  // namespace infopt
