#include "lib/base/tensor.h"

#include <cstdlib>
#include <cstring>
#include <limits>
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
  t.data_ = static_cast<std::byte*>(data_) + row * static_cast<size_t>(begin);
  return t;
}

Tensor Tensor::clone() const {
  Tensor t(dtype_, shape_);
  if (dtype_ == DType::String)
    t.mutable_strings() = strings();
  else if (bytes_)
    std::memcpy(t.data_, data_, bytes_);
  return t;
}

void Tensor::release_pages() const {
  if (!owned_) release_mapped_pages(data_, bytes_);
}

void Tensor::check(DType wanted) const {
  if (wanted != dtype_)
    throw Error(ErrorKind::Defect, "a tensor of " + std::string(name_of(dtype_)) + " was read as " + std::string(name_of(wanted)));
}

}  // namespace infopt
