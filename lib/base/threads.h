// Parallel work over independent items.
#pragma once
#include <cstdint>
#include <functional>

namespace infopt {

/// Threads the machine offers this process.
int hardware_threads();
/// Calls body(item, worker) for every item in [0, items) on at most `threads` threads; worker is in [0, threads).
/// Returns when all are done. The first exception by item number is thrown; later items may then not have run.
void parallel_for(int64_t items, int threads, const std::function<void(int64_t item, int worker)>& body);

}  // namespace infopt
