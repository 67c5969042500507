#include "lib/base/share.h"

#include <omp.h>

#include <algorithm>

namespace infopt {
namespace {
thread_local int threads_of_run = 1;
}

int run_threads() { return threads_of_run; }

RunThreads::RunThreads(int threads) : before_(threads_of_run) { threads_of_run = std::max(1, threads); }
RunThreads::~RunThreads() { threads_of_run = before_; }

void share_work(int64_t items, int64_t least, const std::function<void(int64_t, int64_t)>& body) {
  if (items <= 0) return;
  const int64_t parts = std::min<int64_t>(threads_of_run, items / std::max<int64_t>(least, 1));
  if (parts <= 1) return body(0, items);
  // The same team that oneDNN's loops use: two pools would spin against each other.
#pragma omp parallel for num_threads(static_cast<int>(parts)) schedule(static, 1)
  for (int64_t p = 0; p < parts; ++p) body(items * p / parts, items * (p + 1) / parts);
}

}  // namespace infopt
