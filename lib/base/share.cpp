#include "lib/base/share.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <vector>

namespace infopt {
namespace {
thread_local int threads_of_run = 1;
thread_local int spread_threads = 1;

/// Puts this thread's team on processors of their own, once: a new thread begins on the processor of the one that made it, and one that
/// spins there takes whole time slices from it until the kernel moves it, milliseconds later. Where they go afterwards is left open.
void spread_team(int threads) {
  spread_threads = threads;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  std::vector<int> others;
  const int here = sched_getcpu();
  for (int c = 0; c < CPU_SETSIZE; ++c)
    if (CPU_ISSET(c, &allowed) && c != here) others.push_back(c);
  if (others.empty()) return;
#pragma omp parallel num_threads(threads)
  if (const int t = omp_get_thread_num(); t > 0) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(others[static_cast<size_t>(t - 1) % others.size()], &one);
    if (sched_setaffinity(0, sizeof one, &one) == 0) sched_setaffinity(0, sizeof allowed, &allowed);
  }
}
}  // namespace

int run_threads() { return threads_of_run; }

RunThreads::RunThreads(int threads) : before_(threads_of_run) {
  threads_of_run = std::max(1, threads);
  if (threads_of_run > spread_threads) spread_team(threads_of_run);
}
RunThreads::~RunThreads() { threads_of_run = before_; }

void share_work(int64_t items, int64_t least, const std::function<void(int64_t, int64_t)>& body) {
  if (items <= 0) return;
  const int64_t parts = std::min<int64_t>(threads_of_run, items / std::max<int64_t>(least, 1));
  if (parts <= 1) return body(0, items);
  // The same team that oneDNN's loops use: two pools would spin against each other.
#pragma omp parallel for num_threads(static_cast<int>(parts)) schedule(static, 1)
  for (int64_t p = 0; p < parts; ++p) body(items * p / parts, items * (p + 1) / parts);
}

void share_items(int64_t items, const std::function<void(int64_t)>& body) {
  const int64_t threads = std::min<int64_t>(threads_of_run, items);
#pragma omp parallel for num_threads(static_cast<int>(std::max<int64_t>(threads, 1))) schedule(dynamic, 1)
  for (int64_t i = 0; i < items; ++i) {
    const RunThreads one(1);
    body(i);
  }
}

}  // namespace infopt
