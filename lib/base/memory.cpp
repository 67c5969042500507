#include "lib/base/memory.h"

#include <atomic>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "lib/base/error.h"

namespace infopt {
namespace {

constexpr size_t kAlignment = 64;

/// Four classes to a power of two: at most a quarter is wasted.
size_t size_class(size_t bytes) {
  if (bytes <= 256) return 256;
  const size_t step = std::bit_floor(bytes - 1) / 4;
  return (bytes + step - 1) / step * step;
}

struct Cache {
  std::mutex mutex;
  std::map<size_t, std::vector<void*>> free;

  void* take(size_t size) {
    std::lock_guard lock(mutex);
    auto it = free.find(size);
    if (it == free.end() || it->second.empty()) return nullptr;
    void* p = it->second.back();
    it->second.pop_back();
    return p;
  }
  void give(size_t size, void* p) {
    std::lock_guard lock(mutex);
    free[size].push_back(p);
  }
  void trim() {
    std::lock_guard lock(mutex);
    for (auto& [size, blocks] : free)
      for (void* p : blocks) std::free(p);
    free.clear();
  }
};

std::atomic<uint64_t> blocks_asked{0};

void* ask_system(size_t size) {
  ++blocks_asked;
  return std::aligned_alloc(kAlignment, size);
}

Cache& cache() {
  static Cache* instance = new Cache;  // never destroyed: tensors in static storage may outlive it
  return *instance;
}

}  // namespace

std::shared_ptr<void> allocate(size_t bytes) {
  const size_t size = size_class(bytes);
  if (size < bytes) throw Error(ErrorKind::Limit, "a tensor of " + std::to_string(bytes) + " bytes is larger than memory can address");
  void* p = cache().take(size);
  if (!p) p = ask_system(size);
  if (!p) {
    cache().trim();
    p = ask_system(size);
  }
  if (!p) throw Error(ErrorKind::Limit, "out of memory: no " + std::to_string(bytes) + " bytes for a tensor");
  return {p, [size](void* q) { cache().give(size, q); }};
}

uint64_t blocks_from_system() { return blocks_asked; }

void trim_memory() { cache().trim(); }

}  // namespace infopt
