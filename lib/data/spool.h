// Bytes kept until they are wanted back, in the order in which they came: in memory at first, then in a file without a name.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace infopt {

class Spool {
 public:
  /// The file, should one be needed, is made in `folder` and gone when the process ends.
  explicit Spool(std::string folder) : folder_(std::move(folder)) {}
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  /// Throws Error(Io) where the folder can't be written or the disk is full.
  void write(const void* data, size_t bytes);
  uint64_t size() const { return spilled_ + memory_.size(); }
  /// All bytes, piece by piece.
  void read(const std::function<void(std::string_view)>& take) const;

 private:
  void spill();

  std::string folder_, memory_;
  int fd_ = -1;
  uint64_t spilled_ = 0;
};

}  // namespace infopt
