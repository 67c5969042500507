#include "lib/base/memory.h"

#include <atomic>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/heap.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define INFOPT_POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define INFOPT_UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define INFOPT_POISON(p, n) (void)0
#define INFOPT_UNPOISON(p, n) (void)0
#endif

namespace infopt {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kLarge = size_t{64} << 10;  ///< from here on blocks come from a heap
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kFence = kAlignment;  ///< behind each block, never to be touched
#else
constexpr size_t kFence = 0;
#endif

/// Four classes to a power of two: at most a quarter is wasted.
size_t size_class(size_t bytes) {
  if (bytes <= 256) return 256;
  const size_t step = std::bit_floor(bytes - 1) / 4;
  return (bytes + step - 1) / step * step;
}

/// Small blocks, by size.
struct Cache {
  std::mutex mutex;
  std::map<size_t, std::vector<void*>> free;
  std::atomic<uint64_t> asked{0};

  void* take(size_t size) {
    std::lock_guard lock(mutex);
    auto it = free.find(size);
    if (it == free.end() || it->second.empty()) {
      ++asked;
      return std::aligned_alloc(kAlignment, size);
    }
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
      for (void* p : blocks) {
        INFOPT_UNPOISON(p, size);
        std::free(p);
      }
    free.clear();
  }
};

// Never destroyed: tensors in static storage may outlive them.
Cache& cache() {
  static Cache* instance = new Cache;
  return *instance;
}
Heap& run_heap() {
  static Heap* instance = new Heap;
  return *instance;
}
Heap& lasting_heap() {
  static Heap* instance = new Heap;
  return *instance;
}

[[noreturn]] void no_memory(size_t bytes) {
  throw Error(ErrorKind::Limit, "out of memory: no " + std::to_string(bytes) + " bytes for a tensor");
}

std::shared_ptr<void> allocate_small(size_t bytes) {
  const size_t size = size_class(bytes + kFence);
  void* p = cache().take(size);
  if (!p) no_memory(bytes);
  INFOPT_UNPOISON(p, bytes);
  INFOPT_POISON(static_cast<std::byte*>(p) + bytes, size - bytes);
  return {p, [size](void* q) {
            INFOPT_POISON(q, size);
            cache().give(size, q);
          }};
}

std::shared_ptr<void> allocate_large(Heap& heap, size_t bytes) {
  const size_t size = bytes + kFence;
  if (size < bytes) throw Error(ErrorKind::Limit, "a tensor of " + std::to_string(bytes) + " bytes is larger than memory can address");
  void* p = heap.take(size);
  if (!p) {
    trim_memory();
    p = heap.take(size);
  }
  if (!p) no_memory(bytes);
  INFOPT_UNPOISON(p, bytes);
  INFOPT_POISON(static_cast<std::byte*>(p) + bytes, size - bytes);
  return {p, [size, &heap](void* q) {
            INFOPT_POISON(q, size);
            heap.give(q, size);
          }};
}

}  // namespace

std::shared_ptr<void> allocate(size_t bytes) { return bytes < kLarge ? allocate_small(bytes) : allocate_large(run_heap(), bytes); }

std::shared_ptr<void> allocate_lasting(size_t bytes) {
  return bytes < kLarge ? allocate_small(bytes) : allocate_large(lasting_heap(), bytes);
}

uint64_t blocks_from_system() { return cache().asked + run_heap().grown() + lasting_heap().grown(); }

void trim_memory() {
  cache().trim();
  run_heap().trim();
  lasting_heap().trim();
}

}  // namespace infopt
