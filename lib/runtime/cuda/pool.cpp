#include "lib/runtime/cuda/pool.h"

#include "lib/base/error.h"

namespace infopt::cuda {
namespace {
/// Sizes in steps of an eighth of their power of two, so that blocks fit again.
size_t rounded(size_t bytes) {
  size_t step = 512;
  while (step * 16 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}
}  // namespace

Pool::~Pool() { trim(); }

void Pool::trim() {
  for (const auto& [bytes, memory] : unused_) device_free(memory);
  unused_.clear();
}

std::shared_ptr<void> Pool::take(size_t bytes) {
  const size_t size = keep_ ? rounded(bytes) : bytes;
  void* memory = nullptr;
  if (std::lock_guard lock(mutex_); keep_) {
    if (const auto it = unused_.find(size); it != unused_.end()) {
      memory = it->second;
      unused_.erase(it);
    }
  }
  if (!memory) {
    try {
      memory = device_malloc(size);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::Limit) throw;
      std::lock_guard lock(mutex_);
      if (unused_.empty()) throw;
      trim();
      memory = device_malloc(size);
    }
  }
  return {memory, [pool = shared_from_this(), size](void* p) { pool->give(p, size); }};
}

void Pool::give(void* memory, size_t bytes) {
  if (!keep_) return device_free(memory);
  std::lock_guard lock(mutex_);
  unused_.emplace(bytes, memory);
}

}  // namespace infopt::cuda
