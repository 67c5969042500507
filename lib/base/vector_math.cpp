#include "lib/base/vector_math.h"

#include <cstring>

#include "lib/base/float_math.h"
#include "lib/base/simd.h"

namespace infopt {
namespace {

constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(64)));

/// Up to 16 floats; lanes past n hold `fill`.
INFOPT_INLINE void load(Lanes& v, const float* x, int64_t n, float fill) {
  if (n >= kLanes) {
    std::memcpy(&v, x, sizeof v);
    return;
  }
  for (int64_t i = 0; i < kLanes; ++i) v[i] = fill;
  std::memcpy(&v, x, static_cast<size_t>(n) * sizeof(float));
}

INFOPT_INLINE void store(float* x, const Lanes& v, int64_t n) {
  if (n >= kLanes) std::memcpy(x, &v, sizeof v);
  else std::memcpy(x, &v, static_cast<size_t>(n) * sizeof(float));
}

INFOPT_INLINE float add_lanes(const Lanes& v) {
  float a[kLanes];
  std::memcpy(a, &v, sizeof a);
  for (int64_t half_width = kLanes / 2; half_width > 0; half_width /= 2)
    for (int64_t i = 0; i < half_width; ++i) a[i] += a[i + half_width];
  return a[0];
}

}  // namespace

INFOPT_SIMD void to_floats(const half* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = half_to_float_f(x[i].bits);
}
INFOPT_SIMD void to_floats(const bfloat16* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = bfloat16_to_float_f(x[i].bits);
}
INFOPT_SIMD void to_halves(const float* x, half* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i].bits = float_to_half_f(x[i]);
}
INFOPT_SIMD void to_bfloat16s(const float* x, bfloat16* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i].bits = float_to_bfloat16_f(x[i]);
}

INFOPT_SIMD float sum(const float* x, int64_t n) {
  Lanes total = {}, v;
  for (int64_t i = 0; i < n; i += kLanes) {
    load(v, x + i, n - i, 0.0f);
    total += v;
  }
  return add_lanes(total);
}

INFOPT_SIMD float sum_squares(const float* x, int64_t n) {
  Lanes total = {}, v;
  for (int64_t i = 0; i < n; i += kLanes) {
    load(v, x + i, n - i, 0.0f);
    total += v * v;
  }
  return add_lanes(total);
}

INFOPT_SIMD float sum_abs(const float* x, int64_t n) {
  Lanes total = {}, v;
  for (int64_t i = 0; i < n; i += kLanes) {
    load(v, x + i, n - i, 0.0f);
    total += v < 0.0f ? -v : v;
  }
  return add_lanes(total);
}

INFOPT_SIMD float sum_squares_around(const float* x, int64_t n, float center) {
  Lanes total = {}, v;
  for (int64_t i = 0; i < n; i += kLanes) {
    load(v, x + i, n - i, center);
    v -= center;
    total += v * v;
  }
  return add_lanes(total);
}

INFOPT_SIMD float max_of(const float* x, int64_t n) {
  const float least = -std::numeric_limits<float>::infinity();
  Lanes top, nan = {}, v;
  for (int64_t i = 0; i < kLanes; ++i) top[i] = least;
  for (int64_t i = 0; i < n; i += kLanes) {
    load(v, x + i, n - i, least);
    top = v > top ? v : top;
    nan = v == v ? nan : v;
  }
  float best = least;
  for (int64_t i = 0; i < kLanes; ++i) best = top[i] > best ? top[i] : best;
  for (int64_t i = 0; i < kLanes; ++i)
    if (nan[i] != nan[i]) best = nan[i];
  return best;
}

INFOPT_SIMD float min_of(const float* x, int64_t n) {
  const float most = std::numeric_limits<float>::infinity();
  Lanes low, nan = {}, v;
  for (int64_t i = 0; i < kLanes; ++i) low[i] = most;
  for (int64_t i = 0; i < n; i += kLanes) {
    load(v, x + i, n - i, most);
    low = v < low ? v : low;
    nan = v == v ? nan : v;
  }
  float best = most;
  for (int64_t i = 0; i < kLanes; ++i) best = low[i] < best ? low[i] : best;
  for (int64_t i = 0; i < kLanes; ++i)
    if (nan[i] != nan[i]) best = nan[i];
  return best;
}

INFOPT_SIMD float exp_and_sum(const float* x, float* y, int64_t n, float shift) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = exp_f(x[i] - shift);
  Lanes total = {}, v;
  for (int64_t i = 0; i < n; i += kLanes) {
    load(v, y + i, n - i, 0.0f);
    total += v;
  }
  return add_lanes(total);
}

INFOPT_SIMD void scale_offset(const float* x, float* y, int64_t n, float scale, float offset) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale + offset;
}

INFOPT_SIMD float add_and_sum(const float* a, const float* b, float* y, int64_t n) {
  Lanes total = {}, v, w;
  for (int64_t i = 0; i < n; i += kLanes) {
    __builtin_prefetch(a + n + i, 0, 2);
    __builtin_prefetch(b + n + i, 0, 2);
    load(v, a + i, n - i, 0.0f);
    load(w, b + i, n - i, 0.0f);
    v += w;
    store(y + i, v, n - i);
    total += v;
  }
  return add_lanes(total);
}

INFOPT_SIMD float add_and_sum_squares(const float* a, const float* b, float* y, int64_t n) {
  Lanes total = {}, v, w;
  for (int64_t i = 0; i < n; i += kLanes) {
    __builtin_prefetch(a + n + i, 0, 2);
    __builtin_prefetch(b + n + i, 0, 2);
    load(v, a + i, n - i, 0.0f);
    load(w, b + i, n - i, 0.0f);
    v += w;
    store(y + i, v, n - i);
    total += v * v;
  }
  return add_lanes(total);
}

INFOPT_SIMD void normalize_row(const float* x, float* y, int64_t n, float shift, float scale, const float* gain, const float* bias) {
  if (bias) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - shift) * scale * gain[i] + bias[i];
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - shift) * scale * gain[i];
  }
}

INFOPT_SIMD void rotate_halves(const float* x, float* y, int64_t half, const float* cos, const float* sin, const float* cos_high, const float* sin_high) {
#pragma GCC ivdep
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    y[i] = a * cos[i] - b * sin[i];
    y[half + i] = b * cos_high[i] + a * sin_high[i];
  }
}

INFOPT_SIMD void rotate_pairs(const float* x, float* y, int64_t pairs, const float* cos, const float* sin) {
#pragma GCC ivdep
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    y[2 * i] = a * cos[i] - b * sin[i];
    y[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

// Written lane by lane: GCC 12 makes a fused multiply-add of a loop over pairs that subtracts in one and adds in the other, whatever it is told
// of contraction.
INFOPT_SIMD void rotate_neighbours(const float* x, float* y, int64_t pairs, const float* cos, const float* sin) {
  typedef int32_t Index __attribute__((vector_size(64)));
  const Index swapped{1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14};
  const Lanes sign{-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1};
  Lanes v, c, s;
  for (int64_t i = 0, n = 2 * pairs; i < n; i += kLanes) {
    load(v, x + i, n - i, 0.0f);
    load(c, cos + i, n - i, 0.0f);
    load(s, sin + i, n - i, 0.0f);
    s *= __builtin_shuffle(v, swapped) * sign;
    store(y + i, v * c + s, n - i);
  }
}

}  // namespace infopt
