#include "lib/bench/closed_loop.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <vector>

#include "lib/base/threads.h"

namespace infopt {
namespace {

using Clock = std::chrono::steady_clock;

struct Stream {
  std::vector<double> milliseconds;
  Clock::time_point start, end;
};

void run_stream(const ClosedLoopOptions& options, int index, const std::function<void(int)>& run, Stream& stream) {
  for (int64_t i = 0; i < options.warmup; ++i) run(index);
  stream.milliseconds.reserve(options.runs > 0 ? static_cast<size_t>(options.runs) : 4096);
  stream.start = stream.end = Clock::now();
  const auto limit = std::chrono::duration<double>(options.seconds);
  for (int64_t i = 0;; ++i) {
    const bool enough = options.runs > 0 ? i >= options.runs : i >= options.min_runs && stream.end - stream.start >= limit;
    if (enough) return;
    const auto start = stream.end;
    run(index);
    stream.end = Clock::now();
    stream.milliseconds.push_back(std::chrono::duration<double, std::milli>(stream.end - start).count());
  }
}

}  // namespace

void run_streams(int streams, const std::function<void(int)>& body) {
  std::barrier all_there(streams);  // so that no thread takes two items
  parallel_for(streams, streams, [&](int64_t item, int) {
    all_there.arrive_and_wait();
    body(static_cast<int>(item));
  });
}

ClosedLoopResult measure_closed_loop(const ClosedLoopOptions& options, const std::function<void(int)>& run) {
  ClosedLoopResult result;
  const auto begin = Clock::now();
  run(0);
  result.first_ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  std::vector<Stream> streams(static_cast<size_t>(std::max(1, options.streams)));
  run_streams(static_cast<int>(streams.size()), [&](int s) { run_stream(options, s, run, streams[static_cast<size_t>(s)]); });
  std::vector<double> all;
  auto start = streams[0].start, end = streams[0].end;
  for (const Stream& s : streams) {
    all.insert(all.end(), s.milliseconds.begin(), s.milliseconds.end());
    start = std::min(start, s.start);
    end = std::max(end, s.end);
  }
  result.latency = summarize(std::move(all));
  result.seconds = std::chrono::duration<double>(end - start).count();
  result.runs_per_second = result.seconds > 0 ? static_cast<double>(result.latency.count) / result.seconds : 0;
  return result;
}

}  // namespace infopt
