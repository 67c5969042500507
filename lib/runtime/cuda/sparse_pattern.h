// How the zeros of constant weights lie.
#pragma once
#include <cstdint>
#include <string>

#include "lib/base/tensor.h"

namespace infopt::cuda {

/// Weights W[n,k] in the host's memory: F32, F16, BF16, or codes (I8, U8) of which `zero` is a zero. Strides in elements.
struct WeightMatrix {
  Tensor data;
  int64_t n = 0, k = 0, n_stride = 0, k_stride = 0;
  uint8_t zero = 0;  ///< a byte; codes only
};

struct SparsePattern {
  double zeros = 0;          ///< share
  bool two_of_four = false;  ///< of each four neighbours along k at most two aren't zero; k is a multiple of 4
  double panels = 1;         ///< share of those pieces of 16 outputs by one input in which any isn't zero: what pruning in blocks leaves
};

constexpr int64_t kPanel = 16;           ///< outputs that blocks are looked for in
constexpr double kWorthSaying = 0.3;     ///< zeros from which on plans speak of them
constexpr double kMostPanels = 0.75;     ///< kept, for a kernel that leaves blocks out to be considered

/// Whether a sample of the weights has so many zeros that all are worth a look.
bool many_zeros(const WeightMatrix& weights);
/// Weights with few zeros are known from a sample: `zeros` is then the sample's share, and the others say dense.
SparsePattern find_pattern(const WeightMatrix& weights);
/// As a dense [n,k] of the data's type, codes less `zero` as I8 (U8 and 128, or I8 and 0).
Tensor dense_rows(const WeightMatrix& weights);

}  // namespace infopt::cuda
