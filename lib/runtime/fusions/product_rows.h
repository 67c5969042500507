// A product of rows of codes with packed weights, shared among the run's threads.
#pragma once
#include "lib/base/tensor.h"
#include "lib/runtime/cpu/int8_product.h"

namespace infopt {

/// y[rows, n] of the epilogue's type, or of one with as many bytes. residual: null, or as y.
void multiply_rows(const cpu::Int8Rows& a, const cpu::PackedInt8& weights, const cpu::Int8Epilogue& epilogue, const void* residual, Tensor& y, int64_t rows);

}  // namespace infopt
