// Reductions over any axes, in an order that the shape alone decides.
#pragma once
#include "lib/ops/reduce.h"
#include "lib/runtime/cuda/context.h"

namespace infopt::cuda {

/// x reduced as `view` says, into `to`. Floats up to float32 are summed in float32, float64 in itself, integers wrap in 64 bits.
/// Throws Error(Unsupported) for types without arithmetic; bool has Max and Min.
void run_reduction(CudaRun& run, ReduceKind kind, DType from, const void* x, const ReduceView& view, DType to, void* y);

}  // namespace infopt::cuda
