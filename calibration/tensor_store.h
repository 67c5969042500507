// Tensors that wait: in memory up to a limit, beyond it in a temporary file that vanishes with the process.
#pragma once
#include <cstdint>
#include <map>
#include <mutex>

#include "lib/base/tensor.h"

namespace infopt {

class TensorStore {
 public:
  explicit TensorStore(int64_t memory) : memory_(memory) {}
  ~TensorStore();
  TensorStore(const TensorStore&) = delete;
  TensorStore& operator=(const TensorStore&) = delete;

  /// Any thread. Throws Error(Io) where the file (in the system's folder for temporary files) can't be written.
  int64_t put(const Tensor& tensor);
  /// The tensor, read from the file where it lies there.
  Tensor get(int64_t ticket) const;
  void drop(int64_t ticket);
  int64_t held() const;     ///< bytes in memory
  int64_t spilled() const;  ///< bytes in the file

 private:
  struct Entry {
    Tensor tensor;      ///< undefined where it is in the file
    DType dtype = DType::Undefined;
    Shape shape;
    int64_t offset = 0, bytes = 0;
  };
  int64_t spill(const Tensor& tensor);

  mutable std::mutex mutex_;
  std::map<int64_t, Entry> entries_;
  int64_t memory_, held_ = 0, spilled_ = 0, next_ = 0, end_ = 0;
  int file_ = -1;
};

}  // namespace infopt
