// Float products of a node: batches by NumPy's rules, and the epilogue, by the library where it has one.
#pragma once
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/finish.h"
#include "lib/runtime/cuda/libraries.h"

namespace infopt::cuda {

/// The leading axes of the result and of both operands, which broadcast to it.
struct LeadingAxes {
  Shape result, a, b;
};

/// Batches that lie regularly: `count` of them, the first at these matrices, the next so many further on.
struct Batches {
  int64_t count, a, b, c, stride_a, stride_b, stride_c;
};
/// Few of them: each as long as it can be.
std::vector<Batches> regular_batches(const LeadingAxes& lead);

/// How a product ends: what multiply() is to be given, and what is left to do behind it.
struct Ending {
  const void* bias = nullptr;
  const void* added = nullptr;
  Finish left = {};
};
/// Gives to p's epilogue what the library can do of it. `one_bias`: p.n is all columns, so that the bias is the same for each batch.
Ending end_in_library(MatrixProduct& p, const Finish& finish, bool one_bias);

/// C = activation(alpha·A·B + bias + residual) for dense matrices of p.m, p.n, p.k in p.type (F32, F16 or BF16); p's batch, bias, beta and
/// activation are set here. k may be 0. A whole bias (bias_row n) or a residual is for a single batch, or lies as C does.
void multiply_floats(CudaRun& run, MatrixProduct p, const LeadingAxes& lead, const void* a, const void* b, void* c, const Finish& finish);

inline bool is_float_product(DType t) { return t == DType::F32 || t == DType::F16 || t == DType::BF16; }

}  // namespace infopt::cuda
