// The seam to cuSPARSELt: products with constant weights of which at most two of each four neighbours aren't zero (2:4), on the tensor cores
// that have half of the work to do. The emulation stands in for it, with its limits.
#pragma once
#include <memory>
#include <string>

#include "lib/runtime/cuda/libraries.h"

namespace infopt::cuda {

struct CompressedSize {
  size_t weights = 0, buffer = 0;  ///< bytes: of the compressed weights, and of what compressing needs for a while
};

/// A product is MatrixProduct's C[m,n] = A[m,k]·B[n,k]ᵀ + beta·D, then the bias, then ReLU, B being compressed: F16 or BF16 with C of that type,
/// or I8 with C I32. Limits, as cuSPARSELt has them: B transposed, no batch, alpha 1; n and k multiples of 16 (I8: 32), m and the leading
/// dimensions of A and C multiples of 8 (I8: 16), pointers aligned to 16 bytes; I8 takes neither bias, activation nor beta; no GELU.
class SparseLibrary {
 public:
  virtual ~SparseLibrary() = default;
  /// Throws Error(Unsupported) with what sparse_library_missing() says. One for each stream at a time.
  static std::unique_ptr<SparseLibrary> open();
  virtual std::string version() const = 0;
  virtual CompressedSize compressed_size(DType type, int64_t n, int64_t k) = 0;
  /// B[n,k], dense rows in the device's memory. Weights that aren't 2:4 give other products.
  virtual void compress(Stream& stream, DType type, int64_t n, int64_t k, const void* dense, void* compressed, void* buffer) = 0;
  /// Throws Error(Defect) where the product breaks a limit above. Products of no results do nothing.
  virtual void multiply(Stream& stream, const MatrixProduct& product, const void* a, const void* compressed, void* c, const void* bias = nullptr, const void* added = nullptr) = 0;
};

/// Why there are no such products: the build, the machine or the device lacks something. Empty where there are.
std::string sparse_library_missing();
/// The limit that weights of this type and shape break, in words; empty where they fit.
std::string sparse_weights_misfit(DType type, int64_t n, int64_t k);
/// The limit that so many rows break; empty where they fit.
std::string sparse_rows_misfit(DType type, int64_t m);
/// Throws Error(Defect) naming the limit that the product breaks.
void check_sparse_limits(const MatrixProduct& product, const void* a, const void* compressed, const void* c, const void* bias, const void* added);

}  // namespace infopt::cuda
