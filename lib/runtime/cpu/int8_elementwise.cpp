#include "lib/runtime/cpu/int8_elementwise.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "lib/base/float_math.h"
#include "lib/base/simd.h"
#include "lib/runtime/cpu/int8_kernels.h"

namespace infopt::cpu {
namespace {

using Codes = Int8PairCodes;
Codes codes_of(DType t, int32_t zero) { return t == DType::I8 ? Codes{0x80, zero + 0x80} : Codes{0, zero}; }

using Stored = Int8PairOutput;
using Pair = Int8Pair;
Stored stored_of(DType t, int32_t zero, float low, float high) {
  const float least = static_cast<float>((t == DType::I8 ? -128 : 0) - zero), most = least + 255.0f;
  high = std::clamp(high, least, most);
  return {std::min(std::clamp(low, least, most), high), high, zero, t == DType::I8 ? 0x80 : 0};
}

INFOPT_INLINE float value_of(uint8_t byte, const Codes& c) { return static_cast<float>((byte ^ c.flip) - c.zero); }

INFOPT_INLINE uint8_t store(float v, const Stored& s) {
  v = v > s.low ? v : s.low;  // NaN becomes the least
  v = v < s.high ? v : s.high;
  return static_cast<uint8_t>(std::bit_cast<uint32_t>(v + detail::kRounder) - std::bit_cast<uint32_t>(detail::kRounder) +
                              static_cast<uint32_t>(s.zero));
}

// A block at a time into memory of its own: the operands and the output may be the same.
constexpr int64_t kBlock = 1024;

INFOPT_SIMD void add_block(const Pair& p, const uint8_t* a, const uint8_t* b, int64_t n, uint8_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = store(value_of(a[i], p.a) * p.a_ratio + value_of(b[i], p.b) * p.b_ratio, p.y);
}
INFOPT_SIMD void multiply_block(const Pair& p, const uint8_t* a, const uint8_t* b, int64_t n, uint8_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = store(value_of(a[i], p.a) * value_of(b[i], p.b) * p.a_ratio, p.y);
}

void each_block(bool multiply, const Int8Binary& how, const void* a, const void* b, int64_t b_count, void* y, int64_t n) {
  const Pair pair{codes_of(how.a_dtype, how.a_zero), codes_of(how.b_dtype, how.b_zero), how.a_ratio, how.b_ratio,
                  stored_of(how.output, how.zero, how.low, how.high)};
  const uint8_t *left = static_cast<const uint8_t*>(a), *right = static_cast<const uint8_t*>(b);
  uint8_t* to = static_cast<uint8_t*>(y);
  const bool fast = int8_kernels().pair && std::abs(how.a_ratio) < 1e4f && std::abs(how.b_ratio) < 1e4f;
  uint8_t result[kBlock], repeated[kBlock];
  // A short b is repeated in memory as often as it fits a block.
  const int64_t copies = b_count < n && b_count <= kBlock ? kBlock / b_count : 1, period = b_count * copies;
  if (copies > 1) {
    for (int64_t i = 0; i < period; ++i) repeated[i] = right[i % b_count];
    right = repeated;
  }
  for (int64_t i = 0; i < n;) {
    const int64_t at = i % period, count = std::min({kBlock, n - i, period - at});
    if (fast) {
      int8_kernels().pair(pair, multiply, left + i, right + at, count, to + i);
    } else {
      (multiply ? multiply_block : add_block)(pair, left + i, right + at, count, result);
      std::copy_n(result, count, to + i);
    }
    i += count;
  }
}

INFOPT_SIMD void quantize(const float* x, uint8_t* q, int64_t n, float scale, const Stored& stored) {
  for (int64_t i = 0; i < n; ++i) q[i] = store(x[i] / scale, stored);
}
INFOPT_SIMD void dequantize(const uint8_t* q, float* x, int64_t n, float scale, const Codes& codes) {
  for (int64_t i = 0; i < n; ++i) x[i] = value_of(q[i], codes) * scale;
}

}  // namespace

void int8_lookup(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table) { int8_kernels().lookup(x, y, n, table); }

void int8_add(const Int8Binary& how, const void* a, const void* b, int64_t b_count, void* y, int64_t n) {
  each_block(false, how, a, b, b_count, y, n);
}
void int8_multiply(const Int8Binary& how, const void* a, const void* b, int64_t b_count, void* y, int64_t n) {
  each_block(true, how, a, b, b_count, y, n);
}

void int8_quantize(const float* x, void* q, DType dtype, int64_t n, float scale, int32_t zero) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  quantize(x, static_cast<uint8_t*>(q), n, scale, stored_of(dtype, zero, -inf, inf));
}
void int8_dequantize(const void* q, DType dtype, float* x, int64_t n, float scale, int32_t zero) {
  dequantize(static_cast<const uint8_t*>(q), x, n, scale, codes_of(dtype, zero));
}

}  // namespace infopt::cpu
