#include "lib/base/tensor.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <new>

#include "lib/base/error.h"
#include "lib/base/mapped_file.h"
#include "lib/base/memory.h"

namespace infopt {

int64_t element_count(const Shape& shape) {
  int64_t count = 1;
  for (int64_t d : shape) {
    if (d < 0) throw Error(ErrorKind::Malformed, "the shape " + to_string(shape) + " has a negative dimension");
    if (d != 0 && count > std::numeric_limits<int64_t>::max() / d)
      throw Error(ErrorKind::Malformed, "the shape " + to_string(shape) + " overflows 64 bits");
    count *= d;
  }
  return count;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? "," : "") + std::to_string(shape[i]);
  return text + "]";
}

Tensor::Tensor(DType dtype, Shape shape) : dtype_(dtype), owned_(true), shape_(std::move(shape)), count_(element_count(shape_)), bytes_(bytes_of(dtype, count_)) {
  if (dtype == DType::String) {
    auto strings = std::make_shared<std::vector<std::string>>(static_cast<size_t>(count_));
    data_ = strings.get();
    keep_ = std::move(strings);
    return;
  }
  auto memory = allocate(bytes_);
  data_ = memory.get();
  keep_ = std::move(memory);
}

Tensor::Tensor(DType dtype, Shape shape, std::shared_ptr<const void> keep, const void* data)
    : dtype_(dtype), shape_(std::move(shape)), count_(element_count(shape_)), bytes_(bytes_of(dtype, count_)), keep_(std::move(keep)), data_(const_cast<void*>(data)) {}

/// Memory where elements lie at any address, and their aligned copy once somebody asked for it.
class Tensor::Unaligned {
 public:
  Unaligned(const void* bytes, size_t size) : bytes_(static_cast<const std::byte*>(bytes)), size_(size) {}
  const std::byte* bytes() const {
    const void* copy = copy_.load(std::memory_order_acquire);
    return copy ? static_cast<const std::byte*>(copy) : bytes_;
  }
  bool copied() const { return copy_.load(std::memory_order_acquire) != nullptr; }
  void* align() {
    if (void* copy = copy_.load(std::memory_order_acquire)) return copy;
    std::lock_guard lock(mutex_);
    if (!memory_) {
      memory_ = allocate_lasting(size_);
      if (size_) std::memcpy(memory_.get(), bytes_, size_);
      release_mapped_pages(bytes_, size_);
      copy_.store(memory_.get(), std::memory_order_release);
    }
    return memory_.get();
  }
  std::shared_ptr<void> memory() const { return memory_; }
  void release_pages() const { release_mapped_pages(bytes_, size_); }

 private:
  const std::byte* bytes_;
  size_t size_;
  std::mutex mutex_;
  std::atomic<void*> copy_{nullptr};
  std::shared_ptr<void> memory_;
};

Tensor Tensor::unaligned(DType dtype, Shape shape, std::shared_ptr<const void> keep, const void* data) {
  Tensor t(dtype, std::move(shape), std::move(keep), nullptr);
  t.unaligned_ = std::make_shared<Unaligned>(data, t.bytes_);
  return t;
}

void* Tensor::align() const { return unaligned_->align(); }

const std::byte* Tensor::unaligned_bytes() const { return unaligned_ ? unaligned_->bytes() : static_cast<const std::byte*>(data_); }

Tensor Tensor::aligned_for_now() const { return unaligned_ && !unaligned_->copied() ? clone() : *this; }

Tensor Tensor::zeros(DType dtype, Shape shape) {
  Tensor t(dtype, std::move(shape));
  if (dtype != DType::String) std::memset(t.data_, 0, t.bytes_);
  return t;
}

const std::vector<std::string>& Tensor::strings() const {
  check(DType::String);
  return *static_cast<const std::vector<std::string>*>(data_);
}

std::vector<std::string>& Tensor::mutable_strings() {
  check(DType::String);
  return *static_cast<std::vector<std::string>*>(data_);
}

Tensor Tensor::reshaped(Shape shape) const {
  Tensor t = *this;
  if (element_count(shape) != count_)
    throw Error(ErrorKind::Malformed, "a tensor of shape " + to_string(shape_) + " can't be reshaped to " + to_string(shape));
  t.shape_ = std::move(shape);
  return t;
}

Tensor Tensor::slice_front(int64_t begin, int64_t count) const {
  if (shape_.empty() || begin < 0 || count < 0 || begin + count > shape_[0] || bits_of(dtype_) < 8)
    throw Error(ErrorKind::Defect, "bad slice of a tensor of shape " + to_string(shape_));
  Tensor t = *this;
  t.shape_[0] = count;
  t.count_ = element_count(t.shape_);
  t.bytes_ = bytes_of(dtype_, t.count_);
  const size_t row = shape_[0] ? bytes_ / static_cast<size_t>(shape_[0]) : 0;
  t.data_ = static_cast<std::byte*>(place()) + row * static_cast<size_t>(begin);
  if (unaligned_) t.keep_ = unaligned_->memory();
  t.unaligned_ = nullptr;
  return t;
}

Tensor Tensor::clone() const {
  Tensor t(dtype_, shape_);
  if (dtype_ == DType::String)
    t.mutable_strings() = strings();
  else if (bytes_)
    std::memcpy(t.data_, unaligned_bytes(), bytes_);
  return t;
}

void Tensor::release_pages() const {
  if (unaligned_) unaligned_->release_pages();
  else if (!owned_) release_mapped_pages(data_, bytes_);
}

void Tensor::check(DType wanted) const {
  if (wanted != dtype_)
    throw Error(ErrorKind::Defect, "a tensor of " + std::string(name_of(dtype_)) + " was read as " + std::string(name_of(wanted)));
}

}  // namespace infopt
