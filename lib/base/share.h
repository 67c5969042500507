// One run's work shared among the threads that its session was given.
#pragma once
#include <cstdint>
#include <functional>

namespace infopt {

/// Threads that kernels on this thread may use; 1 unless a RunThreads says more.
int run_threads();
/// While it lives, kernels on this thread may use so many threads.
class RunThreads {
 public:
  explicit RunThreads(int threads);
  ~RunThreads();
  RunThreads(const RunThreads&) = delete;
  RunThreads& operator=(const RunThreads&) = delete;

 private:
  int before_;
};

/// Calls body(begin, end) for parts of [0, items) that together are all of it, on run_threads() threads, each part of at least `least` items.
/// The body must give the same for every cut, and must not throw.
void share_work(int64_t items, int64_t least, const std::function<void(int64_t begin, int64_t end)>& body);

/// Calls body(i) once for each i of [0, items), on run_threads() threads, for each of which run_threads() is 1 meanwhile. The body must not throw.
void share_items(int64_t items, const std::function<void(int64_t item)>& body);

}  // namespace infopt
