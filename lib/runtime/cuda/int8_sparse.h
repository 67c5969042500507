// Products of 8-bit codes with constant 2:4 weights by cuSPARSELt: its int32 sums, and a pass over them that ends as the dense kernel does.
#pragma once
#include <functional>

#include "lib/runtime/cuda/int8_finish.h"
#include "lib/runtime/cuda/sparse_weights.h"

namespace infopt::cuda {

class Int8Sparse {
 public:
  /// Weights of one group whose zero point is 0: I8 [n,k]. `pointwise`: windows of one pixel.
  Int8Sparse(const WeightMatrix& weights, bool pointwise, SparseUse use);
  bool has_choice() const { return compressed_ != nullptr; }
  bool worth_saying() const { return !describe().empty(); }
  std::string describe() const;
  /// y[m,n] = end(x[m,k]·Wᵀ), x dense, U8 or I8; the bits of the dense kernel, which `dense` runs.
  void multiply(CudaContext& context, const Tensor& x, int64_t m, const Int8End& end, void* y, std::function<void()> dense) const;

 private:
  void multiply_2_of_4(CudaContext& context, const Tensor& x, int64_t m, const Int8End& end, void* y) const;

  int64_t n_, k_;
  SparseChoice choice_;
  std::string why_dense_;
  std::unique_ptr<CompressedWeights> compressed_;
  OnDevice from_unsigned_;  ///< 128·Σ w of each column: what uint8 codes lost when they became int8
};

}  // namespace infopt::cuda
