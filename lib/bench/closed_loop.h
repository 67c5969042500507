// A closed loop: every stream starts its next run when its last one has ended.
#pragma once
#include <cstdint>
#include <functional>

#include "lib/bench/summary.h"

namespace infopt {

struct ClosedLoopOptions {
  int64_t warmup = 3;  ///< runs of each stream that don't count
  int64_t runs = 0;    ///< counted runs of each stream; 0: as many as `seconds` allow, and at least `min_runs`
  double seconds = 1;
  int64_t min_runs = 10;
  int streams = 1;  ///< threads that run side by side
};

struct ClosedLoopResult {
  double first_ms = 0;  ///< the very first run, alone, before the warm-up
  Summary latency;      ///< milliseconds of the counted runs, of all streams together
  double seconds = 0;   ///< from the first counted run's start to the last one's end
  double runs_per_second = 0;
};

/// Calls body(stream) for each of so many streams, each on a thread of its own; they begin when all are there.
void run_streams(int streams, const std::function<void(int stream)>& body);

/// Calls run(stream), streams side by side. An exception of a run ends the loop and is thrown on.
ClosedLoopResult measure_closed_loop(const ClosedLoopOptions& options, const std::function<void(int stream)>& run);

}  // namespace infopt
