// Products of two tensors of 8-bit codes that both change from run to run: packed for cuBLASLt's int8 products, whose sums get their zero points and end in
// a pass of their own.
#pragma once
#include "lib/runtime/cuda/int8_finish.h"

namespace infopt::cuda {

/// U8 or I8 codes and their zero point: `run_zero` is its byte in the device's memory where the run computes it, of the codes' type.
struct CodeFactor {
  const Tensor& codes;
  int32_t zero = 0;
  const uint8_t* run_zero = nullptr;
};

/// The output's shape, by NumPy's rules. Throws Error(Malformed) where the factors don't fit.
Shape code_product_shape(const Tensor& a, const Tensor& b);

/// `end`: of one column. `scales`: two numbers of the device's memory whose product is the scale; null where `end` has it.
void multiply_codes(CudaContext& context, const CodeFactor& a, const CodeFactor& b, const Int8End& end, const float* const (&scales)[2], Tensor& y);

}  // namespace infopt::cuda
