// The seam to NVIDIA's libraries: matrix products (cuBLASLt) and convolutions (cuDNN, where it is there). The emulation stands in for both,
// and holds callers to the libraries' real limits.
#pragma once
#include <memory>
#include <string>

#include "lib/base/dtype.h"
#include "lib/runtime/cuda/runtime.h"

namespace infopt::cuda {

/// C[m,n] = alpha·op(A)[m,k]·op(B)[k,n] + beta·D, row-major, for `batch` matrices `stride` elements apart (0: the same one, A and B only); then
/// + bias[n], then the activation. D is C itself, or a matrix of its shape, type and strides.
/// A and B are of one type: F32, F16, BF16 (sums in float32, C of their type or F32), F8E4M3FN (C: F32, F16 or BF16), I8 (exact sums, C: I32).
/// Limits, as cuBLASLt has them: I8 and F8 take A as it is and B transposed ([n,k]), k, n and the leading dimensions multiples of 16, pointers
/// aligned to 16 bytes; I8 has neither bias nor activation, alpha 1 and beta 0 or 1; F8 into F32 has no bias. The 16-bit types want pointers
/// aligned to 16 bytes and leading dimensions multiples of 8 to be fast, but need neither. k is at least 1.
struct MatrixProduct {
  DType type = DType::F32, out = DType::F32;
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, ldc = 0;  ///< elements from one stored row to the next
  int64_t batch = 1, stride_a = 0, stride_b = 0, stride_c = 0;
  float alpha = 1, beta = 0;
  enum Activation { None, Relu, Gelu } activation = None;  ///< Gelu: by tanh, as cuBLASLt has it
  bool bias = false;                  ///< of C's type, n elements
};

class SparseLibrary;

class Libraries {
 public:
  Libraries();
  virtual ~Libraries();
  /// Throws Error(Unsupported) naming the library that is missing. One for each stream at a time.
  static std::unique_ptr<Libraries> open(const DeviceFacts& device, bool tf32);
  virtual std::string versions() const = 0;
  /// Throws Error(Defect) where the product breaks a limit above. Products of no results do nothing. `added` is D; null: C.
  virtual void multiply(Stream& stream, const MatrixProduct& product, const void* a, const void* b, void* c, const void* bias = nullptr, const void* added = nullptr) = 0;
  /// 2:4 products (sparse_library.h), opened at the first call. Throws Error(Unsupported) where there are none.
  SparseLibrary& sparse();

 private:
  std::unique_ptr<SparseLibrary> sparse_;
};

/// Throws Error(Defect) naming the limit that the product breaks.
void check_limits(const MatrixProduct& product, const void* a, const void* b, const void* c, const void* bias, const void* added);
/// An I8 product by a kernel of ours, for sizes that the library has no kernel for.
void multiply_integers(Stream& stream, const MatrixProduct& product, const void* a, const void* b, void* c, const void* added);

}  // namespace infopt::cuda
