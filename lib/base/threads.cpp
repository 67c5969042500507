#include "lib/base/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace infopt {

int hardware_threads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

void parallel_for(int64_t items, int threads, const std::function<void(int64_t, int)>& body) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  int64_t first_item = items;
  std::exception_ptr first_error;
  auto work = [&](int worker) {
    while (!failed) {
      const int64_t item = next++;
      if (item >= items) return;
      try {
        body(item, worker);
      } catch (...) {
        std::lock_guard lock(mutex);
        failed = true;
        if (item < first_item) {
          first_item = item;
          first_error = std::current_exception();
        }
      }
    }
  };
  const int workers = static_cast<int>(std::min<int64_t>(std::max(1, threads), items));
  std::vector<std::thread> pool;
  for (int w = 1; w < workers; ++w) pool.emplace_back(work, w);
  if (workers > 0) work(0);
  for (auto& t : pool) t.join();
  if (first_error) std::rethrow_exception(first_error);
}

}  // namespace infopt
