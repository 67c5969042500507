// Hot loops over arrays of floats. Sums run in 16 fixed lanes, so that the bits don't depend on the instruction set.
// `x` and `y` may be the same array, and must not overlap otherwise.
#pragma once
#include <cstdint>

#include "lib/base/dtype.h"

namespace infopt {

void to_floats(const half* x, float* y, int64_t n);
void to_floats(const bfloat16* x, float* y, int64_t n);
void to_halves(const float* x, half* y, int64_t n);
void to_bfloat16s(const float* x, bfloat16* y, int64_t n);

float sum(const float* x, int64_t n);
float sum_squares(const float* x, int64_t n);
float sum_abs(const float* x, int64_t n);
/// Σ (x − center)².
float sum_squares_around(const float* x, int64_t n, float center);
/// The largest (least) element; −inf (+inf) where n is 0; NaN where there is one.
float max_of(const float* x, int64_t n);
float min_of(const float* x, int64_t n);

/// y = exp(x − shift); returns their sum.
float exp_and_sum(const float* x, float* y, int64_t n, float shift);
/// y = x·scale + offset.
void scale_offset(const float* x, float* y, int64_t n, float scale, float offset);
/// y = a + b, which y may be; returns the sum of y, or of its squares, as sum() and sum_squares() do. What lies behind a and b is fetched ahead.
float add_and_sum(const float* a, const float* b, float* y, int64_t n);
float add_and_sum_squares(const float* a, const float* b, float* y, int64_t n);
/// y = (x − shift)·scale·gain[i] + bias[i]; bias may be null.
void normalize_row(const float* x, float* y, int64_t n, float shift, float scale, const float* gain, const float* bias);
/// The pairs (x[i], x[half + i]) turned by angles of which cosines and sines are given, for the two results apart:
/// y[i] = x[i]·cos[i] − x[half + i]·sin[i], y[half + i] = x[half + i]·cos_high[i] + x[i]·sin_high[i].
void rotate_halves(const float* x, float* y, int64_t half, const float* cos, const float* sin, const float* cos_high, const float* sin_high);
/// Likewise the pairs (x[2i], x[2i + 1]), with one cosine and sine each.
void rotate_pairs(const float* x, float* y, int64_t pairs, const float* cos, const float* sin);
/// The same with a cosine and a sine for each element.
void rotate_neighbours(const float* x, float* y, int64_t pairs, const float* cos, const float* sin);

}  // namespace infopt
