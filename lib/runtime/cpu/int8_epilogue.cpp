#include "lib/runtime/cpu/int8_epilogue.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "lib/base/error.h"
#include "lib/base/float_math.h"
#include "lib/base/memory.h"
#include "lib/base/simd.h"
#include "lib/runtime/cpu/int8_kernels.h"

namespace infopt::cpu {
namespace {

INFOPT_INLINE float clamp_f(float v, float low, float high) {
  v = v > low ? v : low;
  return v < high ? v : high;
}

/// Half to even, of |v| < 2^22.
INFOPT_INLINE int32_t round_small(float v) {
  return static_cast<int32_t>(std::bit_cast<uint32_t>(v + detail::kRounder) - std::bit_cast<uint32_t>(detail::kRounder));
}

INFOPT_SIMD void scale_sums(const int32_t* sums, const float* scale, const float* bias, float low, float high, int64_t n, float* v) {
  if (bias) {
    for (int64_t i = 0; i < n; ++i) v[i] = clamp_f(static_cast<float>(sums[i]) * scale[i] + bias[i], low, high);
  } else {
    for (int64_t i = 0; i < n; ++i) v[i] = clamp_f(static_cast<float>(sums[i]) * scale[i], low, high);
  }
}

INFOPT_SIMD void add_floats(float* v, const float* residual, float low, float high, int64_t n) {
  for (int64_t i = 0; i < n; ++i) v[i] = clamp_f(v[i] + residual[i], low, high);
}

/// v becomes w.
INFOPT_SIMD void add_codes(float* v, const uint8_t* residual, int32_t flip, const Int8Epilogue& e, float low, float high, int64_t n) {
  const int32_t zero = e.residual_zero + flip;
  const float ratio = e.ratio, residual_ratio = e.residual_ratio;
  for (int64_t i = 0; i < n; ++i) {
    const float q = static_cast<float>(round_small(v[i])), r = static_cast<float>((residual[i] ^ flip) - zero);
    v[i] = clamp_f(q * ratio + r * residual_ratio, low, high);
  }
}

INFOPT_SIMD void store_codes(const float* v, int32_t zero, int64_t n, uint8_t* dst) {
  for (int64_t i = 0; i < n; ++i) dst[i] = static_cast<uint8_t>(round_small(v[i]) + zero);
}

/// Makes low and high what also saturates to the range of `t` around `zero`.
void saturate(float& low, float& high, DType t, int32_t zero) {
  const float least = static_cast<float>((t == DType::I8 ? -128 : 0) - zero),
              most = static_cast<float>((t == DType::I8 ? 127 : 255) - zero);
  high = std::clamp(high, least, most);
  low = std::min(std::clamp(low, least, most), high);
}

}  // namespace

Int8Finish::Int8Finish(const Int8Epilogue& epilogue)
    : e(&epilogue),
      low(e->low),
      high(e->high),
      low2(e->low2),
      high2(e->high2),
      bytes(int8_output_bytes(epilogue) == 1),
      flip(e->output == DType::I8 ? 0x80 : 0) {
  const bool known = bytes || e->output == DType::F32 || e->output == DType::I32;
  const bool residual_fits =
      !e->residual || (bytes ? e->residual_dtype == DType::U8 || e->residual_dtype == DType::I8 : e->residual_dtype == e->output);
  if (!known || !residual_fits || (e->residual && e->output == DType::I32) || (!e->scale && e->output != DType::I32))
    throw Error(ErrorKind::Defect, "an integer kernel can't store " + std::string(name_of(e->output)) + " this way");
  if (!bytes) return;
  saturate(low, high, e->output, e->zero);
  saturate(low2, high2, e->output, e->zero2);
}

void finish_int8_row(const Int8Finish& finish, int64_t first, int64_t n, const int32_t* sums, const void* residual, void* dst) {
  const Int8Epilogue& e = *finish.e;
  const size_t count = static_cast<size_t>(n);
  if (e.output == DType::I32) {
    std::memcpy(dst, sums, count * sizeof(int32_t));
    return;
  }
  alignas(64) float v[kInt8Panel];
  scale_sums(sums, e.scale + first, e.float_bias ? e.float_bias + first : nullptr, finish.low, finish.high, n, v);
  if (e.output == DType::F32) {
    if (e.residual) add_floats(v, static_cast<const float*>(residual), finish.low2, finish.high2, n);
    std::memcpy(dst, v, count * sizeof(float));
    return;
  }
  if (e.residual) {
    const int32_t flip = e.residual_dtype == DType::I8 ? 0x80 : 0;
    add_codes(v, static_cast<const uint8_t*>(residual), flip, e, finish.low2, finish.high2, n);
  }
  uint8_t* out = static_cast<uint8_t*>(dst);
  store_codes(v, e.residual ? e.zero2 : e.zero, n, out);
  if (e.table)
    for (int64_t i = 0; i < n; ++i) out[i] = e.table[out[i]];
}

void finish_int8_lanes(const Int8Finish& finish, const Int8Panel& panel, int32_t row_sum, int32_t* sums, const void* residual, void* dst) {
  alignas(64) int32_t natural[kInt8Panel];
  if (panel.weight_zero) {
    for (int64_t i = 0; i < panel.vectors * kInt8Lanes; ++i)
      sums[i] = static_cast<int32_t>(static_cast<uint32_t>(sums[i]) -
                                     static_cast<uint32_t>(panel.weight_zero[i]) * static_cast<uint32_t>(row_sum));
  }
  if (panel.shuffled) {
    for (int64_t p = 0; p < panel.vectors * kInt8Lanes; p += 4)
      std::memcpy(natural + int8_lane_order(panel.vectors, p), sums + p, 4 * sizeof(int32_t));
    sums = natural;
  }
  finish_int8_row(finish, panel.first, panel.columns, sums, residual, dst);
}

void* int8_scratch(Int8Slot slot, size_t bytes) {
  struct Memory {
    std::shared_ptr<void> data;
    size_t bytes = 0;
  };
  thread_local std::array<Memory, static_cast<size_t>(Int8Slot::Count)> memories;
  Memory& memory = memories[static_cast<size_t>(slot)];
  if (memory.bytes < bytes) {
    memory.data.reset();
    memory.bytes = 0;
    memory.data = allocate_lasting(bytes);
    memory.bytes = bytes;
  }
  return memory.data.get();
}

}  // namespace infopt::cpu
