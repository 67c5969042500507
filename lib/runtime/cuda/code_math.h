// Arithmetic on 8-bit codes, by the operations of cpu/int8_elementwise.h in their order: the bits are the CPU's.
#pragma once
#include "lib/runtime/cuda/portable.h"

namespace infopt::cuda {

/// How a value in steps of the output becomes a code.
struct CodeStore {
  float low = 0, high = 0;
  int32_t zero = 0;
  /// Bounds relative to the zero point, cut to what the type holds.
  static CodeStore of(DType type, int32_t zero, float low, float high) {
    const float least = static_cast<float>((type == DType::I8 ? -128 : 0) - zero), most = least + 255.0f;
    const auto clamp = [&](float v) { return v < least ? least : most < v ? most : v; };
    high = clamp(high);
    low = clamp(low);
    return {high < low ? high : low, high, zero};
  }
  /// Half to even; NaN becomes the least code.
  INFOPT_DEVICE uint8_t operator()(float v) const {
    v = v > low ? v : low;
    v = v < high ? v : high;
    return static_cast<uint8_t>(__float_as_uint(__fadd_rn(v, 12582912.0f)) - 0x4B400000u + static_cast<uint32_t>(zero));
  }
};

/// Codes of either type as numbers.
struct CodeRead {
  uint32_t flip = 0;
  int32_t zero = 0;
  static CodeRead of(DType type, int32_t zero) { return type == DType::I8 ? CodeRead{0x80, zero + 0x80} : CodeRead{0, zero}; }
  INFOPT_DEVICE float operator()(uint8_t byte) const { return static_cast<float>(static_cast<int32_t>(byte ^ flip) - zero); }
};

}  // namespace infopt::cuda
