#include "lib/base/finite.h"

#include <algorithm>
#include <cmath>

#include "lib/base/error.h"
#include "lib/base/float8.h"
#include "lib/base/simd.h"

namespace infopt {
namespace {

// Not finite = all bits of the exponent set. Integer arithmetic without a branch, so that it runs at the speed of memory.
INFOPT_SIMD bool any_nonfinite16(const uint16_t* p, int64_t n, uint16_t exponent) {
  uint16_t bad = 0;
  for (int64_t i = 0; i < n; ++i) bad |= static_cast<uint16_t>((p[i] & exponent) == exponent);
  return bad != 0;
}

INFOPT_SIMD bool any_nonfinite32(const uint32_t* p, int64_t n, uint32_t exponent) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) bad |= static_cast<uint32_t>((p[i] & exponent) == exponent);
  return bad != 0;
}

INFOPT_SIMD bool any_nonfinite64(const uint64_t* p, int64_t n, uint64_t exponent) {
  uint64_t bad = 0;
  for (int64_t i = 0; i < n; ++i) bad |= static_cast<uint64_t>((p[i] & exponent) == exponent);
  return bad != 0;
}

template <class Bits, class Any>
int64_t find(const Tensor& t, Bits exponent, Any any) {
  constexpr int64_t kBlock = 1 << 14;
  const Bits* p = reinterpret_cast<const Bits*>(t.raw());
  for (int64_t begin = 0; begin < t.size(); begin += kBlock) {
    const int64_t n = std::min(kBlock, t.size() - begin);
    if (!any(p + begin, n, exponent)) continue;
    for (int64_t i = begin;; ++i)
      if ((p[i] & exponent) == exponent) return i;
  }
  return -1;
}

int64_t find_small(const Tensor& t) {
  const auto* p = reinterpret_cast<const uint8_t*>(t.raw());
  bool finite[256];
  for (int code = 0; code < 256; ++code) finite[code] = std::isfinite(decode_small_float(t.dtype(), static_cast<uint8_t>(code)));
  for (int64_t i = 0; i < t.size(); ++i)
    if (!finite[p[i]]) return i;
  return -1;
}

bool is_nan(const Tensor& t, int64_t i) {
  switch (t.dtype()) {
    case DType::F32: return std::isnan(t.data<float>()[i]);
    case DType::F64: return std::isnan(t.data<double>()[i]);
    case DType::F16: return std::isnan(to_float(t.data<half>()[i]));
    case DType::BF16: return std::isnan(to_float(t.data<bfloat16>()[i]));
    default: return std::isnan(decode_small_float(t.dtype(), reinterpret_cast<const uint8_t*>(t.raw())[i]));
  }
}

}  // namespace

int64_t first_nonfinite(const Tensor& t) {
  switch (t.dtype()) {
    case DType::F32: return find<uint32_t>(t, 0x7F800000u, any_nonfinite32);
    case DType::F64: return find<uint64_t>(t, 0x7FF0000000000000u, any_nonfinite64);
    case DType::F16: return find<uint16_t>(t, 0x7C00, any_nonfinite16);
    case DType::BF16: return find<uint16_t>(t, 0x7F80, any_nonfinite16);
    case DType::F8E4M3FN:
    case DType::F8E4M3FNUZ:
    case DType::F8E5M2:
    case DType::F8E5M2FNUZ:
    case DType::F8E8M0: return find_small(t);
    default: return -1;
  }
}

void check_finite(const Tensor& t, const std::string& where) {
  int64_t i = first_nonfinite(t);
  if (i < 0) return;
  const std::string what = is_nan(t, i) ? "NaN" : "Inf";
  Shape index(t.shape().size());
  for (size_t axis = index.size(); axis-- > 0; i /= t.shape()[axis]) index[axis] = i % t.shape()[axis];
  throw Error(ErrorKind::Malformed, "holds " + what + " at " + to_string(index), where);
}

}  // namespace infopt
