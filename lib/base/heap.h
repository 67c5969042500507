// A heap of large blocks in one range of addresses. Neighbouring free blocks become one, so that memory which held many small tensors holds
// a large one later: what a run touches stays near the most that it needs at one time.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory_resource>
#include <mutex>
#include <set>
#include <utility>

namespace infopt {

/// Blocks are whole pages. Any thread.
class Heap {
 public:
  static constexpr size_t kPage = 4096;

  Heap() = default;
  ~Heap();  ///< all blocks must have been given back
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  /// Uninitialized memory; null where the system has none. The smallest free block that is large enough is cut, the lowest of equals.
  void* take(size_t bytes);
  /// `bytes` as they were taken.
  void give(void* block, size_t bytes);
  /// Gives the pages of free blocks back to the system.
  void trim();
  /// How often more addresses were touched than ever before.
  uint64_t grown() const;
  /// How far the blocks have ever reached.
  size_t reach() const;

 private:
  bool reserve();
  bool commit(size_t end);
  void add_free(size_t at, size_t bytes);
  void remove_free(std::pmr::map<size_t, size_t>::iterator it);

  mutable std::mutex mutex_;
  std::byte* base_ = nullptr;
  size_t reserved_ = 0, committed_ = 0;  ///< bytes of addresses, and of those that may be written
  size_t top_ = 0, reach_ = 0;           ///< behind top_ nothing is in use
  uint64_t grown_ = 0;
  std::pmr::unsynchronized_pool_resource nodes_;
  std::pmr::map<size_t, size_t> by_place_{&nodes_};            ///< free blocks below top_: offset, bytes
  std::pmr::set<std::pair<size_t, size_t>> by_size_{&nodes_};  ///< the same: bytes, offset
};

}  // namespace infopt
