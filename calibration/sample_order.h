// Hands on what samples gave in the order of the samples, whatever order they come in: sums are then the same for any number of threads.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <utility>

namespace infopt {

template <typename Values>
class SampleOrder {
 public:
  explicit SampleOrder(std::function<void(int64_t sample, Values& values)> add) : add_(std::move(add)) {}
  void take(int64_t sample, Values values) {
    const std::lock_guard lock(mutex_);
    waiting_.emplace(sample, std::move(values));
    for (auto it = waiting_.begin(); it != waiting_.end() && it->first == next_; it = waiting_.erase(it), ++next_) add_(it->first, it->second);
  }

 private:
  std::function<void(int64_t, Values&)> add_;
  std::mutex mutex_;
  int64_t next_ = 0;
  std::map<int64_t, Values> waiting_;
};

}  // namespace infopt
