// What follows the sums of a product or convolution where the library doesn't do it.
#pragma once
#include "lib/ops/op.h"
#include "lib/runtime/cuda/runtime.h"

namespace infopt::cuda {

/// y = activation(y + bias + residual); pointers are to elements of y's type, null: none.
struct Finish {
  const void* bias = nullptr;
  int64_t bias_row = 0, bias_column = 1;  ///< elements from one to the next: 0 where all are one
  float bias_scale = 1;
  const void* residual = nullptr;         ///< of y's shape, dense
  PostActivation post = {};
  bool nothing() const { return !bias && !residual && post.kind == PostActivation::None; }
};

/// Of `rows` dense rows of n elements: F32, F16 or BF16.
void finish_rows(Stream& stream, DType type, void* y, int64_t rows, int64_t n, const Finish& finish);

}  // namespace infopt::cuda
