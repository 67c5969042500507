// Device memory that is used again.
#pragma once
#include <map>
#include <memory>
#include <mutex>

#include "lib/runtime/cuda/runtime.h"

namespace infopt::cuda {

class Pool : public std::enable_shared_from_this<Pool> {
 public:
  /// `keep`: blocks that are given back are used again, and freed when the pool ends; else freed at once.
  explicit Pool(bool keep) : keep_(keep) {}
  ~Pool();
  /// At least `bytes`, aligned to 256. Throws Error(Limit) where there is none even after what lies unused is given back.
  std::shared_ptr<void> take(size_t bytes);

 private:
  void give(void* memory, size_t bytes);
  void trim();

  const bool keep_;
  std::mutex mutex_;
  std::multimap<size_t, void*> unused_;
};

/// Whether blocks are kept: the emulation gives each back at once, so that its fences catch whoever uses one too long.
extern const bool kKeepBlocks;

}  // namespace infopt::cuda
