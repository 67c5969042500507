#include "lib/base/heap.h"

#include <sys/mman.h>

#include <algorithm>

namespace infopt {
namespace {

constexpr size_t kMostReserved = size_t{1} << 40, kLeastReserved = size_t{1} << 30;
constexpr size_t kHuge = size_t{2} << 20;   // a huge page
constexpr size_t kStep = size_t{32} << 20;  // made writable at a time

size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

}  // namespace

Heap::~Heap() {
  if (base_) ::munmap(base_, reserved_);
}

/// Addresses cost nothing; where they are limited, fewer will do.
bool Heap::reserve() {
  for (reserved_ = kMostReserved; !base_ && reserved_ >= kLeastReserved; reserved_ /= 2) {
    void* p = ::mmap(nullptr, reserved_ + kHuge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) continue;
    // Huge pages lie at multiples of their size: what stands before the first is given back.
    const size_t skip = round_up(reinterpret_cast<uintptr_t>(p), kHuge) - reinterpret_cast<uintptr_t>(p);
    base_ = static_cast<std::byte*>(p) + skip;
    if (skip) ::munmap(p, skip);
    if (skip < kHuge) ::munmap(base_ + reserved_, kHuge - skip);
    return true;
  }
  return base_ != nullptr;
}

bool Heap::commit(size_t end) {
  if (end <= committed_) return true;
  if (end > reserved_) return false;
  const size_t wanted = std::min(round_up(end, kStep), reserved_);
  if (::mprotect(base_ + committed_, wanted - committed_, PROT_READ | PROT_WRITE) != 0) return false;
#ifdef MADV_HUGEPAGE
  // The first is left out: a small session shouldn't have two megabytes because of one small tensor.
  const size_t first = std::max(committed_, kHuge);
  if (wanted > first) (void)::madvise(base_ + first, wanted - first, MADV_HUGEPAGE);
#endif
  committed_ = wanted;
  return true;
}

void Heap::add_free(size_t at, size_t bytes) {
  by_place_.emplace(at, bytes);
  by_size_.emplace(bytes, at);
}

void Heap::remove_free(std::pmr::map<size_t, size_t>::iterator it) {
  by_size_.erase({it->second, it->first});
  by_place_.erase(it);
}

void* Heap::take(size_t bytes) {
  std::lock_guard lock(mutex_);
  const size_t size = round_up(std::max<size_t>(bytes, 1), kPage);
  if (size < bytes) return nullptr;
  if (const auto fit = by_size_.lower_bound({size, 0}); fit != by_size_.end()) {
    const auto [free, at] = *fit;
    remove_free(by_place_.find(at));
    if (free > size) add_free(at + size, free - size);
    return base_ + at;
  }
  if (!base_ && !reserve()) return nullptr;
  if (size > reserved_ - top_ || !commit(top_ + size)) return nullptr;
  const size_t at = top_;
  top_ += size;
  if (top_ > reach_) reach_ = top_, ++grown_;
  return base_ + at;
}

void Heap::give(void* block, size_t bytes) {
  std::lock_guard lock(mutex_);
  size_t at = static_cast<size_t>(static_cast<std::byte*>(block) - base_), size = round_up(std::max<size_t>(bytes, 1), kPage);
  auto next = by_place_.lower_bound(at);
  if (next != by_place_.end() && next->first == at + size) {
    size += next->second;
    const auto merged = next++;
    remove_free(merged);
  }
  if (next != by_place_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == at) {
      at = before->first;
      size += before->second;
      remove_free(before);
    }
  }
  if (at + size == top_) top_ = at;
  else add_free(at, size);
}

void Heap::trim() {
  std::lock_guard lock(mutex_);
  for (const auto& [at, bytes] : by_place_) ::madvise(base_ + at, bytes, MADV_DONTNEED);
  if (reach_ > top_) ::madvise(base_ + top_, reach_ - top_, MADV_DONTNEED);
  reach_ = top_;
}

uint64_t Heap::grown() const {
  std::lock_guard lock(mutex_);
  return grown_;
}

size_t Heap::reach() const {
  std::lock_guard lock(mutex_);
  return reach_;
}

}  // namespace infopt
