// Normalization of rows: LayerNormalization, RMSNormalization, and what the fusion rules find of them.
#pragma once
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/quantizer.h"

namespace infopt::cuda {

/// A factor or summand: one row for all rows (stride 0), or one each.
struct RowFactor {
  const void* data = nullptr;  ///< null: none
  DType type = DType::F32;
  int64_t stride = 0;
};

struct RowNorm {
  const void* x;
  void* y;                 ///< null: the rows aren't written
  int64_t rows, n;
  DType from, to;
  RowFactor gain, bias;
  float epsilon;
  bool centered;           ///< around the mean; else only the root mean square is divided out
  const void* other = nullptr;  ///< added to x first, the sum rounded to `from`; null: nothing
  void* sum = nullptr;          ///< where x + other goes, if anywhere
  float *means = nullptr, *inverses = nullptr;  ///< of each row, where they are wanted
  CodeWriter codes = {};        ///< of the rows, as `to` would hold them
};
/// Whether rows of n float32 or 16-bit floats can be added to first: shared memory then holds them.
bool row_norm_adds(int64_t n);
/// In float32, or float64 where x is that.
void run_row_norm(Stream& stream, const RowNorm& norm);

}  // namespace infopt::cuda
