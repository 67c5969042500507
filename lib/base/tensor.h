// A dense tensor in row-major order: a shape, an element type, and a share in the memory that holds the elements.
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lib/base/dtype.h"

namespace infopt {

using Shape = std::vector<int64_t>;

/// Number of elements; 1 for a scalar. Throws Error(Malformed) where the product overflows or a dimension is negative.
int64_t element_count(const Shape& shape);
std::string to_string(const Shape& shape);  ///< "[2,3,4]"

/// Copies share their memory; `mutable_data` is for whoever made the tensor and hasn't given it away yet.
/// The memory is owned (64-byte aligned) or belongs to a mapped file, which `keep` keeps alive.
class Tensor {
 public:
  Tensor() = default;
  /// Uninitialized memory of the size that dtype and shape need. Strings start empty.
  Tensor(DType dtype, Shape shape);
  /// A view of memory that lives as long as `keep`. `bytes` must be what dtype and shape need.
  Tensor(DType dtype, Shape shape, std::shared_ptr<const void> keep, const void* data);
  /// A view of memory where the elements may lie at any address: whoever reads them makes, the first time, an aligned copy that all shares of
  /// this tensor have from then on. Whoever needs them once only takes unaligned_bytes or aligned_for_now.
  static Tensor unaligned(DType dtype, Shape shape, std::shared_ptr<const void> keep, const void* data);

  template <class T> static Tensor of(Shape shape, std::span<const T> values);
  template <class T> static Tensor of(Shape shape, std::initializer_list<T> values) { return of(std::move(shape), std::span<const T>(values.begin(), values.size())); }
  template <class T> static Tensor vector(const std::vector<T>& values) { return of({static_cast<int64_t>(values.size())}, std::span<const T>(values)); }
  template <class T> static Tensor scalar(T value) { return of({}, std::span<const T>(&value, 1)); }
  static Tensor zeros(DType dtype, Shape shape);

  bool defined() const { return dtype_ != DType::Undefined; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t rank() const { return static_cast<int64_t>(shape_.size()); }
  int64_t dim(int64_t axis) const { return shape_[static_cast<size_t>(axis < 0 ? axis + rank() : axis)]; }
  int64_t size() const { return count_; }    ///< elements
  size_t bytes() const { return bytes_; }    ///< 0 for strings

  /// Throws Error(Defect) if T isn't the element type. For packed and 8-bit float types use raw().
  template <class T> const T* data() const { check(dtype_of<T>); return static_cast<const T*>(place()); }
  template <class T> T* mutable_data() { check(dtype_of<T>); return static_cast<T*>(place()); }
  template <class T> std::span<const T> span() const { return {data<T>(), static_cast<size_t>(count_)}; }
  const std::byte* raw() const { return static_cast<const std::byte*>(place()); }
  std::byte* mutable_raw() { return static_cast<std::byte*>(place()); }
  /// The elements' bytes, wherever they lie.
  const std::byte* unaligned_bytes() const;
  /// This tensor, or a copy that goes with its last share where the elements don't lie aligned.
  Tensor aligned_for_now() const;
  const std::vector<std::string>& strings() const;
  std::vector<std::string>& mutable_strings();

  /// The same memory under another shape with the same number of elements.
  Tensor reshaped(Shape shape) const;
  /// Elements [begin, begin+count) of the first axis, sharing the memory. Not for packed or string types.
  Tensor slice_front(int64_t begin, int64_t count) const;
  /// A copy whose memory nobody shares.
  Tensor clone() const;
  /// Where the memory belongs to a mapped file (lib/base/mapped_file.h): lets the system take its pages back; they are
  /// read again when touched. Does nothing for other memory.
  void release_pages() const;
  /// True where no other Tensor shares this memory and it may be written.
  bool unique() const { return owned_ && keep_.use_count() == 1; }

 private:
  class Unaligned;
  void check(DType wanted) const;
  void* place() const { return unaligned_ ? align() : data_; }
  void* align() const;

  DType dtype_ = DType::Undefined;
  bool owned_ = false;
  Shape shape_;
  int64_t count_ = 0;
  size_t bytes_ = 0;
  std::shared_ptr<const void> keep_;
  void* data_ = nullptr;
  std::shared_ptr<Unaligned> unaligned_;
};

template <class T> Tensor Tensor::of(Shape shape, std::span<const T> values) {
  Tensor t(dtype_of<T>, std::move(shape));
  T* out = t.mutable_data<T>();
  for (int64_t i = 0; i < t.size(); ++i) out[i] = values[static_cast<size_t>(i)];
  return t;
}

/// Every numeric or bool element as T (int64_t, float or double), whatever the stored type; packed and 16- and 8-bit types are decoded.
template <class T> std::vector<T> to_vector(const Tensor& t);
/// The only element as a number. Throws Error(Malformed) where there isn't exactly one.
template <class T> T to_scalar(const Tensor& t);
/// The tensor converted to `dtype` with the rules of ONNX's Cast (numeric types; float to integer truncates,
/// float to the 8-bit kinds saturates, float to half rounds to even). Throws Error(Unsupported) for strings.
Tensor cast(const Tensor& t, DType dtype);

}  // namespace infopt
