// Mean and spread of rows, shared by the normalizations: float32 in fixed lanes, float64 in plain loops.
#pragma once
#include <cmath>
#include <cstdint>

#include "lib/base/vector_math.h"

namespace infopt {

template <class T> struct Moments {
  T mean, inverse_deviation;  ///< 1 / sqrt(variance + epsilon)
};

inline Moments<float> row_moments(const float* x, int64_t n, float epsilon, float total) {
  const float mean = total / static_cast<float>(n);
  return {mean, 1.0f / std::sqrt(sum_squares_around(x, n, mean) / static_cast<float>(n) + epsilon)};
}

inline Moments<float> row_moments(const float* x, int64_t n, float epsilon) { return row_moments(x, n, epsilon, sum(x, n)); }

inline Moments<double> row_moments(const double* x, int64_t n, double epsilon) {
  double total = 0, squares = 0;
  for (int64_t i = 0; i < n; ++i) total += x[i];
  const double mean = total / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
  return {mean, 1.0 / std::sqrt(squares / static_cast<double>(n) + epsilon)};
}

inline float inverse_rms_of(float squares, int64_t n, float epsilon) { return 1.0f / std::sqrt(squares / static_cast<float>(n) + epsilon); }
inline float inverse_rms(const float* x, int64_t n, float epsilon) { return inverse_rms_of(sum_squares(x, n), n, epsilon); }

/// Moments of the row y = a + b, which is stored; as of y by itself, to the bit.
inline Moments<float> sum_moments(const float* a, const float* b, float* y, int64_t n, float epsilon, bool centered) {
  if (!centered) return {0.0f, inverse_rms_of(add_and_sum_squares(a, b, y, n), n, epsilon)};
  const float total = add_and_sum(a, b, y, n);
  return row_moments(y, n, epsilon, total);
}

inline double inverse_rms(const double* x, int64_t n, double epsilon) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += x[i] * x[i];
  return 1.0 / std::sqrt(squares / static_cast<double>(n) + epsilon);
}

inline void normalize_row(const double* x, double* y, int64_t n, double shift, double scale, const double* gain, const double* bias) {
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - shift) * scale * gain[i] + (bias ? bias[i] : 0.0);
}

inline void scale_offset(const double* x, double* y, int64_t n, double scale, double offset) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale + offset;
}

}  // namespace infopt
