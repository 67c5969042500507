// What `infopt bench` is asked for and what it found; bench.cpp measures, bench_print.cpp prints.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/bench/closed_loop.h"
#include "lib/runtime/session.h"
#include "tools/bench_inputs.h"

namespace infopt {

struct BenchOptions {
  std::string model, device = "auto";
  BenchInputSpec inputs;
  std::vector<int64_t> batches;
  int threads = 1;
  ClosedLoopOptions loop;
  bool profile = false, json = false;
};

struct BatchFigures {
  int64_t batch = 1;
  ClosedLoopResult loop;
  double items_per_second = 0;
};

struct BenchReport {
  double read_ms = 0, prepare_ms = 0;  ///< reading the model, making the session
  std::vector<BatchFigures> batches;
  std::optional<int64_t> memory_before, memory_peak;  ///< resident bytes of the process: before reading the model, and the most
};

void print_bench_text(const BenchOptions& options, const BenchReport& report);
void print_bench_json(const BenchOptions& options, const BenchReport& report);

}  // namespace infopt
