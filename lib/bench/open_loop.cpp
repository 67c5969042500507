#include "lib/bench/open_loop.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>
#include <thread>

namespace infopt {
namespace {

/// What happened to each served request, and to the server.
struct Log {
  std::vector<double> waits, latencies;  ///< seconds
  double busy = 0, last_answer = 0;
};

bool queue_grew(const OpenLoopResult& result, const Log& log, const std::vector<double>& due) {
  if (result.served < result.requests) return true;
  const double late = log.last_answer - due.back();
  return late > 0.05 * (due.back() - due.front()) && late > 10 * log.busy / static_cast<double>(result.batches);
}

void finish(OpenLoopResult& result, const std::vector<double>& due, Log log, double end) {
  const double span = std::max(log.last_answer - due.front(), 1e-12);
  result.mean_batch = result.batches > 0 ? static_cast<double>(result.served) / static_cast<double>(result.batches) : 0;
  result.achieved_rate = static_cast<double>(result.served) / span;
  result.utilization = log.busy / span;
  const double waited = std::accumulate(log.waits.begin(), log.waits.end(), 0.0);
  result.mean_wait_ms = result.served > 0 ? 1e3 * waited / static_cast<double>(result.served) : 0;
  result.mean_queue = waited / span;  // Little's law
  result.saturated = queue_grew(result, log, due);
  for (size_t i = static_cast<size_t>(result.served); i < due.size(); ++i) log.latencies.push_back(end - due[i]);
  for (double& l : log.latencies) l *= 1e3;
  result.latency = summarize(std::move(log.latencies));
}

}  // namespace

std::vector<double> make_arrivals(Arrivals kind, double rate, double seconds, uint64_t seed) {
  std::mt19937_64 bits(seed);
  std::vector<double> times;
  // The standard's exponential distribution isn't the same everywhere; its inverse is. 53 bits, never 0.
  const auto gap = [&] {
    return kind == Arrivals::Fixed ? 1 / rate : -std::log((static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53) / rate;
  };
  for (double t = kind == Arrivals::Fixed ? 0 : gap(); t < seconds;) {
    times.push_back(t);
    t = kind == Arrivals::Fixed ? static_cast<double>(times.size()) / rate : t + gap();
  }
  return times;
}

double SteadyLoadClock::now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void SteadyLoadClock::sleep_until(double time) {
  constexpr double kAwake = 200e-6;
  if (const double left = time - now(); left > kAwake) std::this_thread::sleep_for(std::chrono::duration<double>(left - kAwake));
  while (now() < time) std::this_thread::yield();
}

OpenLoopResult run_open_loop(const std::vector<double>& arrivals, const OpenLoopOptions& options, LoadClock& clock,
                             const std::function<void(int64_t)>& serve) {
  OpenLoopResult result;
  result.requests = static_cast<int64_t>(arrivals.size());
  if (arrivals.empty()) return result;
  const double extent = arrivals.back() - arrivals.front();
  result.offered_rate = extent > 0 ? static_cast<double>(arrivals.size() - 1) / extent : 0;
  std::vector<double> due = arrivals;  // by the clock: sums that are compared are always the same sums
  const double origin = clock.now();
  for (double& t : due) t += origin;
  Log log;
  const size_t batch = static_cast<size_t>(std::max<int64_t>(1, options.batch));
  size_t first = 0, come = 0;  // requests [first, come) wait
  double now = origin;
  while (first < due.size()) {
    now = clock.now();
    if (options.give_up > 0 && now > due.back() + options.give_up) break;
    while (come < due.size() && due[come] <= now) ++come;
    const double deadline = come > first ? due[first] + options.max_wait : due[first];
    if (come == first || (come - first < batch && now < deadline)) {
      clock.sleep_until(come < due.size() ? std::min(due[come], deadline) : deadline);
      continue;
    }
    const size_t count = std::min(batch, come - first);
    result.max_queue = std::max(result.max_queue, static_cast<int64_t>(come - first));
    serve(static_cast<int64_t>(count));
    log.last_answer = clock.now();
    log.busy += log.last_answer - now;
    for (size_t i = first; i < first + count; ++i) {
      log.waits.push_back(now - due[i]);
      log.latencies.push_back(log.last_answer - due[i]);
    }
    first += count;
    result.served += static_cast<int64_t>(count);
    ++result.batches;
  }
  finish(result, due, std::move(log), now);
  return result;
}

}  // namespace infopt
