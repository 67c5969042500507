// An open loop: requests come when the schedule says, whether or not earlier ones are done, and are served in batches.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "lib/bench/summary.h"

namespace infopt {

enum class Arrivals { Poisson, Fixed };

/// Seconds at which requests come, ascending, within [0, seconds): at equal distances, or with exponentially distributed ones. The same
/// for the same seed on every machine. `rate` is in requests a second.
std::vector<double> make_arrivals(Arrivals kind, double rate, double seconds, uint64_t seed);

/// The time that the loop lives in; a test's can be made up. Seconds from any origin.
class LoadClock {
 public:
  virtual ~LoadClock() = default;
  virtual double now() = 0;
  virtual void sleep_until(double time) = 0;
};
/// The machine's steady clock. It sleeps short of the time and waits out the rest awake: a sleeping thread comes late.
class SteadyLoadClock final : public LoadClock {
 public:
  double now() override;
  void sleep_until(double time) override;
};

struct OpenLoopOptions {
  int64_t batch = 1;    ///< most requests that are served together
  double max_wait = 0;  ///< seconds that the oldest request may wait for its batch to fill while the server is idle
  double give_up = 0;   ///< seconds after the last arrival at which the rest is left unserved; 0: never
};

struct OpenLoopResult {
  int64_t requests = 0, served = 0;
  int64_t batches = 0;
  double mean_batch = 0;
  double offered_rate = 0;   ///< requests a second, over the schedule
  double achieved_rate = 0;  ///< served requests a second, from the first arrival to the last answer
  double utilization = 0;    ///< share of that time in which the server served
  Summary latency;           ///< milliseconds from the *scheduled* arrival to the answer; an unserved request counts with its age
  double mean_wait_ms = 0;   ///< of the served: scheduled arrival to the start of its batch
  double mean_queue = 0;     ///< waiting requests, averaged over time
  int64_t max_queue = 0;     ///< most requests that had arrived when a batch began, those of the batch included
  /// Some were left unserved, or the last answer came after the last arrival by more than 5 % of the schedule and by more than ten
  /// services: the queue grew, and the percentiles only say how long the test was.
  bool saturated = false;
};

/// One server, first come first served: when it is idle and `batch` requests wait, or the oldest has waited `max_wait`, it takes at most
/// `batch` of them and calls serve(count). Latencies count from the schedule, so a server that falls behind
/// doesn't hide it by sending fewer requests (coordinated omission). `arrivals` ascend, from 0 at the call.
OpenLoopResult run_open_loop(const std::vector<double>& arrivals, const OpenLoopOptions& options, LoadClock& clock,
                             const std::function<void(int64_t count)>& serve);

}  // namespace infopt
