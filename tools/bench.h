// What `infopt bench` is asked for and what it found. bench.cpp reads the command line and measures, bench_print.cpp prints.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/bench/closed_loop.h"
#include "lib/bench/gpu_monitor.h"
#include "lib/bench/open_loop.h"
#include "lib/bench/profile.h"
#include "lib/runtime/session.h"
#include "tools/bench_inputs.h"
#include "tools/device.h"

namespace infopt {

/// A doubling of the batch that gains less throughput than this no longer pays.
inline constexpr double kLeastGain = 0.10;

struct BenchOptions {
  std::string model, trace;
  DeviceChoice device;
  BenchInputSpec inputs;
  std::vector<int64_t> batches;
  int threads = 1;
  ClosedLoopOptions loop;
  std::vector<double> rates;
  std::string arrivals = "poisson";
  double max_wait_ms = 0, duration = 5;
  uint64_t seed = 1;
  std::optional<double> latency_target_ms;
  size_t top = 15;
  bool profile = false, json = false;
};

struct BatchFigures {
  int64_t batch = 1;
  ClosedLoopResult loop;
  double items_per_second = 0;
  std::optional<double> gain;  ///< per doubling, over the next smaller batch, by the medians
  std::optional<Summary> device = {};  ///< milliseconds of the runs on the device alone
};

struct LoadFigures {
  double rate = 0;
  int64_t largest_batch = 1, items_per_request = 1;
  OpenLoopResult result;
};

struct BenchReport {
  std::string device = "cpu";
  double read_ms = 0, prepare_ms = 0;  ///< reading the model, making the session
  std::vector<BatchFigures> batches;
  std::optional<int64_t> knee, within_target;
  std::vector<LoadFigures> loads;
  std::optional<RunProfile> profile;
  std::optional<GpuFigures> gpu;  ///< while batches were measured, warm-up and compilation of plans included
  std::optional<int64_t> memory_before, memory_peak;  ///< resident bytes of the process: before reading the model, and the most
};

void print_bench_text(const BenchOptions& options, const BenchReport& report);
void print_bench_json(const BenchOptions& options, const BenchReport& report);

}  // namespace infopt
