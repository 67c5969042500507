// Products with constant float weights whose zeros lie in blocks of 16 outputs: inputs that none of the 16 reads are neither kept nor multiplied.
#pragma once
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/finish.h"
#include "lib/runtime/cuda/sparse_pattern.h"

namespace infopt::cuda {

/// Weights by panels of 16 outputs and, within them, by pieces of 64 (F32) or 128 (F16, BF16) inputs. Immutable, shared by runs.
class BlockWeights {
 public:
  /// F32, F16 or BF16.
  explicit BlockWeights(const WeightMatrix& weights);
  /// y[m,n] = finish(x[m,k]·Wᵀ), n and k the weights'; rows of x are lda elements apart, y is dense. The finish's bias is one for each output. Sums in
  /// float32, over the inputs in their order.
  void run(CudaRun& run, const void* x, int64_t m, int64_t lda, void* y, const Finish& finish) const;
  /// Whether the weights are in the device's memory.
  bool prepared() const { return starts_.there(); }
  /// Gives their memory back, while no run uses it.
  void drop() const;

 private:
  DType type_;
  int64_t n_, k_;
  OnDevice values_, depths_, starts_;
};

}  // namespace infopt::cuda
