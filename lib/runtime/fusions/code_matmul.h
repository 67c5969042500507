// Products of two tensors of codes that both change from run to run.
#pragma once
#include "lib/base/tensor.h"
#include "lib/runtime/cpu/int8_epilogue.h"

namespace infopt {

/// U8 or I8. Zero points of the left side are one for all; of the right side one for all or one a column.
struct CodeFactor {
  Tensor codes;
  std::vector<int32_t> zeros = {0};
};

/// MatMul's shape by NumPy's rules: leading axes broadcast, a vector is a row on the left and a column on the right. Throws
/// Error(Malformed) where the factors don't fit.
Shape product_shape(const Tensor& a, const Tensor& b);

/// What follows the sums: an epilogue with one scale for all columns and neither bias nor residual.
struct CodeProductEnd {
  cpu::Int8Epilogue epilogue;
  float scale = 1;
};
/// y, of product_shape and the epilogue's type or one with as many bytes. Exact for every depth: where sums might not fit 32 bits, they are
/// taken piece by piece and added up in float32. Sums as they are (I32) wrap, as ONNX's do.
void multiply_codes(const CodeFactor& a, const CodeFactor& b, const CodeProductEnd& end, Tensor& y);

}  // namespace infopt
