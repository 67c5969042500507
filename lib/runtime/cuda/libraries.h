// The seam to NVIDIA's libraries: matrix products (cuBLASLt) and convolutions (cuDNN, where it is there). The emulation stands in for both,
// and holds callers to the libraries' real limits.
#pragma once
#include <memory>
#include <string>

#include "lib/base/dtype.h"
#include "lib/runtime/cuda/runtime.h"

namespace infopt::cuda {

/// C[m,n] = alpha·op(A)[m,k]·op(B)[k,n] + beta·C, row-major, for `batch` matrices `stride` elements apart; then + bias[n], then the activation.
/// A and B are of one type: F32, F16, BF16 (sums in float32, C of their type or F32), F8E4M3FN (C: F32, F16 or BF16), I8 (exact sums, C: I32).
/// Limits, as cuBLASLt has them: I8 and F8 take A as it is and B transposed ([n,k]), k and the leading dimensions multiples of 16, pointers
/// aligned to 16 bytes; I8 has neither bias nor activation, alpha 1 and beta 0 or 1. The 16-bit types want pointers aligned to 16 bytes and
/// leading dimensions multiples of 8 to be fast, but need neither.
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

class Libraries {
 public:
  virtual ~Libraries() = default;
  /// Throws Error(Unsupported) naming the library that is missing. One for each stream at a time.
  static std::unique_ptr<Libraries> open(const DeviceFacts& device, bool tf32);
  virtual std::string versions() const = 0;
  /// Throws Error(Defect) where the product breaks a limit above. Products of no elements do nothing.
  virtual void multiply(Stream& stream, const MatrixProduct& product, const void* a, const void* b, void* c, const void* bias = nullptr) = 0;
};

}  // namespace infopt::cuda
