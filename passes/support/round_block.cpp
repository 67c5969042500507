#include "passes/support/round_block.h"

#include <cstring>

#include "lib/base/simd.h"

namespace infopt {
namespace {

using Lanes __attribute__((vector_size(64), aligned(4))) = float;
using Bits __attribute__((vector_size(64), aligned(4))) = int32_t;
constexpr float kMagic = 12582912.0f;  // 1.5·2^23: adding and taking it away rounds half to even

const Lanes& at(const float* p) { return *reinterpret_cast<const Lanes*>(p); }
Lanes& at(float* p) { return *reinterpret_cast<Lanes*>(p); }

INFOPT_SIMD void round_columns(int64_t n, const float* factor, const float* weight, const float* w, const float* t, int64_t stride, const float* scales, const float* zeros, const CodeRange& range,
                               const float* keep, float* codes, float* costs) {
  alignas(64) float targets[kMostColumns * kRows];
  for (int64_t u = 0; u < n; ++u) at(targets + u * kRows) = at(t + u * stride);
  const Lanes scale = at(scales), zero = at(zeros), inverse = 1.0f / scale;
  const float low = range.low, high = range.high, least = range.spacing.least, magic = kMagic / static_cast<float>(1 << range.spacing.digits);
  const bool floats = range.spacing.digits > 0;
  Lanes cost = {};
  for (int64_t u = n - 1; u >= 0; --u) {
    const Lanes target = at(targets + u * kRows);
    Lanes code = target * inverse + zero, step = kMagic - (Lanes){};
    if (floats) {  // what rounds to the digits of a number: the constant times its power of two
      const Lanes power = (Lanes)((Bits)code & 0x7f800000);
      step = (power < least ? least - (Lanes){} : power) * magic;
    }
    code = (code + step) - step;
    code = code < low ? low - (Lanes){} : code;
    code = code > high ? high - (Lanes){} : code;
    if (keep) code = at(keep + u * stride) != 0.0f ? code : zero;
    const Lanes value = (code - zero) * scale, d = target - value, e = at(w + u * stride) - value;
    at(codes + u * kRows) = code;
    cost += weight[u] * d * d;
    const float* f = factor + u * n;
    for (int64_t v = 0; v < u; ++v) at(targets + v * kRows) += f[v] * e;
  }
  at(costs) = cost;
}

INFOPT_SIMD void price_columns(int64_t n, const float* factor, const float* weight, const float* w, const float* t, int64_t stride, const float* scales, const float* zeros, const float* codes,
                               float* costs) {
  alignas(64) float targets[kMostColumns * kRows];
  for (int64_t u = 0; u < n; ++u) at(targets + u * kRows) = at(t + u * stride);
  const Lanes scale = at(scales), zero = at(zeros);
  Lanes cost = {};
  for (int64_t u = n - 1; u >= 0; --u) {
    const Lanes value = (at(codes + u * kRows) - zero) * scale, d = at(targets + u * kRows) - value, e = at(w + u * stride) - value;
    cost += weight[u] * d * d;
    const float* f = factor + u * n;
    for (int64_t v = 0; v < u; ++v) at(targets + v * kRows) += f[v] * e;
  }
  at(costs) = cost;
}

INFOPT_SIMD void blend(int64_t n, const float* costs, const float* from, const float* best, float* to) {
  const auto better = at(costs) < at(best);
  for (int64_t u = 0; u < n; ++u) at(to + u * kRows) = better ? at(from + u * kRows) : at(to + u * kRows);
}

}  // namespace

BlockForm block_form(const float* l, int64_t stride, int64_t n) {
  BlockForm form{n, std::vector<float>(static_cast<size_t>(n * n)), std::vector<float>(static_cast<size_t>(n))};
  for (int64_t u = 0; u < n; ++u) form.weight[static_cast<size_t>(u)] = l[u * stride + u] * l[u * stride + u];
  for (int64_t v = 0; v < n; ++v)
    for (int64_t u = 0; u < v; ++u) form.factor[static_cast<size_t>(v * n + u)] = l[v * stride + u] / l[u * stride + u];
  return form;
}

void round_block(const BlockForm& form, const float* w, const float* t, int64_t stride, const RowGrids& grids, const CodeRange& range, BlockCodes& out, const float* keep) {
  out.grids = grids;
  round_columns(form.n, form.factor.data(), form.weight.data(), w, t, stride, grids.scale, grids.zero, range, keep, out.codes, out.cost);
}

void price_block(const BlockForm& form, const float* w, const float* t, int64_t stride, BlockCodes& out) {
  price_columns(form.n, form.factor.data(), form.weight.data(), w, t, stride, out.grids.scale, out.grids.zero, out.codes, out.cost);
}

void keep_cheaper(int64_t n, const BlockCodes& other, BlockCodes& best) {
  blend(n, other.cost, other.codes, best.cost, best.codes);
  for (int64_t r = 0; r < kRows; ++r) {
    if (!(other.cost[r] < best.cost[r])) continue;
    best.cost[r] = other.cost[r];
    best.grids.scale[r] = other.grids.scale[r];
    best.grids.zero[r] = other.grids.zero[r];
  }
}

}  // namespace infopt
