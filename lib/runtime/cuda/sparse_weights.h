// Constant weights of a float product of which many are zero: 2:4 by cuSPARSELt, in blocks by a kernel of ours, or dense, whichever is faster.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/finish.h"
#include "lib/runtime/cuda/libraries.h"
#include "lib/runtime/cuda/sparse_blocks.h"
#include "lib/runtime/cuda/sparse_choice.h"
#include "lib/runtime/cuda/sparse_pattern.h"

namespace infopt::cuda {

/// Weights compressed for cuSPARSELt, in the device's memory once they are asked for. Any thread.
class CompressedWeights {
 public:
  explicit CompressedWeights(WeightMatrix weights) : weights_(std::move(weights)) {}
  /// Throws Error(Limit) where there is no memory.
  const void* get(CudaRun& run) const;
  bool there() const;
  /// Gives the memory back, while no other run uses it.
  void drop() const;

 private:
  WeightMatrix weights_;
  mutable std::mutex mutex_;
  mutable Tensor compressed_;
};

class SparseWeights {
 public:
  /// F32, F16 or BF16.
  SparseWeights(const WeightMatrix& weights, SparseUse use);
  /// Whether any way but the dense one is there.
  bool has_choice() const { return blocks_ || compressed_; }
  /// Whether plans should speak of the zeros.
  bool worth_saying() const { return !describe().empty(); }
  std::string describe() const;
  /// C[m,n] = finish(A[m,k]·Wᵀ): p's type, m, n, k and lda count, C is dense. `dense` does the same without leaving anything out.
  void multiply(CudaRun& run, MatrixProduct p, const void* a, void* c, const Finish& finish, std::function<void()> dense) const;

 private:
  void multiply_2_of_4(CudaRun& run, MatrixProduct p, const void* a, void* c, const Finish& finish) const;

  SparseChoice choice_;
  std::string why_dense_;
  std::unique_ptr<CompressedWeights> compressed_;
  std::unique_ptr<BlockWeights> blocks_;
};

/// "61 % zeros, neither 2:4 nor in blocks of 16 outputs: dense", and the like.
std::string percent_text(double share);

}  // namespace infopt::cuda
