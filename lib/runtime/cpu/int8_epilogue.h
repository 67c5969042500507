// What becomes of an exact int32 sum before it is stored: scale, bias, activation, residual, rounding, table.
#pragma once
#include <cstdint>
#include <limits>

#include "lib/base/dtype.h"

namespace infopt::cpu {

/// What happens to `sum` = Σ (a − za)·(w − zw) in column n. These float operations, each rounded by itself, in this order, whatever the
/// instruction set, thread count or tiling:
///   v = float(sum + bias[n]) · scale[n];  v = v + float_bias[n];  v = min(max(v, low), high)
///   F32: v = v + residual, then v = min(max(v, low2), high2) where there is a residual; stored
///   U8, I8: scale holds sa·sw[n]/sy; low and high are in steps of y, relative to its zero.  q = saturate(round_half_even(v) + zero)
///     with a residual r: w = float(q − zero)·ratio + float(r − residual_zero)·residual_ratio;  w = min(max(w, low2), high2);
///     q = saturate(round_half_even(w) + zero2);  the q is at last replaced by table[uint8(q)]
///   I32: sum + bias[n], nothing else.
/// Integer sums wrap. max(v, low) is low where v isn't a number.
struct Int8Epilogue {
  DType output = DType::U8;           ///< F32, U8, I8 or I32
  const float* scale = nullptr;       ///< one a column; unused for I32
  const int32_t* bias = nullptr;      ///< one a column, or null
  const float* float_bias = nullptr;  ///< one a column, or null: added after the multiplication
  float low = -std::numeric_limits<float>::infinity(), high = std::numeric_limits<float>::infinity();
  int32_t zero = 0;
  bool residual = false;
  DType residual_dtype = DType::U8;  ///< F32 for an F32 output, else U8 or I8
  float ratio = 1, residual_ratio = 1;
  int32_t residual_zero = 0, zero2 = 0;
  float low2 = -std::numeric_limits<float>::infinity(), high2 = std::numeric_limits<float>::infinity();
  const uint8_t* table = nullptr;  ///< 256 bytes, or null
};

}  // namespace infopt::cpu
