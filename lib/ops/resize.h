// How Resize and Upsample sample each axis, for every device's kernels. Coordinates are computed in float, so that they round as in the engines
// that the models were made for.
#pragma once
#include <cmath>
#include <vector>

#include "lib/ops/op.h"

#if defined(__CUDACC__)
#define INFOPT_ANYWHERE __host__ __device__ inline
#else
#define INFOPT_ANYWHERE inline
#endif

namespace infopt {

enum class Interpolation { Nearest, Linear, Cubic };
enum class Coordinates { HalfPixel, HalfPixelSymmetric, PytorchHalfPixel, AlignCorners, Asymmetric, TfCropAndResize, TfHalfPixelForNn };
enum class Nearest { PreferFloor, PreferCeil, Floor, Ceil, Simple };
enum class Aspect { Stretch, NotLarger, NotSmaller };

/// What decides the taps of an axis.
struct Sampling {
  Interpolation mode = Interpolation::Nearest;
  Coordinates coordinates = Coordinates::Asymmetric;
  Nearest nearest = Nearest::Simple;
  bool antialias = false, exclude_outside = false;
  float cubic_a = -0.75F;
};

struct ResizeSpec : Sampling {
  Aspect aspect = Aspect::Stretch;
  bool has_axes = false;
  float extrapolation = 0;
  std::vector<int64_t> axes;

  /// Of Upsample, and of Resize-10. Throws Error(Malformed) for a mode that there isn't.
  static ResizeSpec simple(const Node& node);
  /// Of Resize since opset 11.
  static ResizeSpec full(const Node& node);
};

struct AxisPlan {
  int64_t in = 1, out = 1;
  float scale = 1, roi_start = 0, roi_end = 1;
  bool identity() const { return in == out && scale == 1 && roi_start == 0 && roi_end == 1; }
};

/// Every axis, from what is given for some. Throws Error(Malformed) where that doesn't fit.
std::vector<AxisPlan> plan_resize(const ResizeSpec& s, const Shape& shape, const std::vector<float>& scales, const std::vector<int64_t>& sizes, const std::vector<float>& roi);
/// Taps of each output along the axis. Throws Error(Unsupported, Malformed) where they are too many, or lie too far outside.
int64_t tap_width(const Sampling& s, const AxisPlan& a);
/// The axes that aren't identities, in the order to resample them: the one that shrinks most (or grows least) first: fewer elements for the
/// next. Among equals the last, which costs most, on fewer rows.
std::vector<size_t> resample_order(const std::vector<AxisPlan>& axes);

INFOPT_ANYWHERE float source_of(const Sampling& s, const AxisPlan& a, float i) {
  const float in = static_cast<float>(a.in), out = static_cast<float>(a.out), wanted = a.scale * in;
  switch (s.coordinates) {
    case Coordinates::HalfPixel: return (i + 0.5F) / a.scale - 0.5F;
    case Coordinates::HalfPixelSymmetric: return in / 2 * (1 - out / wanted) + (i + 0.5F) / a.scale - 0.5F;
    case Coordinates::PytorchHalfPixel: return a.out > 1 ? (i + 0.5F) / a.scale - 0.5F : 0;
    case Coordinates::AlignCorners: return wanted == 1 || a.out == 1 ? 0 : i * (in - 1) / (wanted - 1);
    case Coordinates::Asymmetric: return i / a.scale;
    case Coordinates::TfHalfPixelForNn: return (i + 0.5F) / a.scale;
    case Coordinates::TfCropAndResize:
      if (a.out == 1) return 0.5F * (a.roi_start + a.roi_end) * (in - 1);
      return a.roi_start * (in - 1) + i * (a.roi_end - a.roi_start) * (in - 1) / (out - 1);
  }
  return 0;
}

INFOPT_ANYWHERE int64_t nearest_of(Nearest mode, float x, float scale) {
  switch (mode) {
    case Nearest::PreferFloor: return static_cast<int64_t>(ceilf(x - 0.5F));
    case Nearest::PreferCeil: return static_cast<int64_t>(floorf(x + 0.5F));
    case Nearest::Floor: return static_cast<int64_t>(floorf(x));
    case Nearest::Ceil: return static_cast<int64_t>(ceilf(x));
    case Nearest::Simple: return static_cast<int64_t>(scale < 1 ? ceilf(x) : floorf(x));
  }
  return 0;
}

INFOPT_ANYWHERE float resize_filter(const Sampling& s, float x) {
  x = fabsf(x);
  if (s.mode == Interpolation::Linear) return x < 1 ? 1 - x : 0;
  const float a = s.cubic_a;
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}

/// Taps of output i: width indices, `step` apart, and their weights (none for Nearest).
INFOPT_ANYWHERE void put_taps(const Sampling& s, const AxisPlan& a, int64_t i, int64_t width, int64_t step, int32_t* index, float* weight) {
  const float x = source_of(s, a, static_cast<float>(i));
  const int64_t most = a.in - 1;
  if (s.mode == Interpolation::Nearest) {
    const int64_t p = nearest_of(s.nearest, x, a.scale);
    *index = static_cast<int32_t>(p < 0 ? 0 : p > most ? most : p);
    return;
  }
  const float stretch = s.antialias && a.scale < 1 ? a.scale : 1.0F;
  const int64_t first = static_cast<int64_t>(floorf(x)) - (width - 1) / 2;
  float sum = 0;
  for (int64_t k = 0; k < width; ++k) {
    const int64_t p = first + k;
    const bool skip = s.exclude_outside && (p < 0 || p > most);
    const float w = skip ? 0 : resize_filter(s, (static_cast<float>(p) - x) * stretch);
    index[k * step] = static_cast<int32_t>(p < 0 ? 0 : p > most ? most : p);
    weight[k * step] = w;
    sum += w;
  }
  if ((s.exclude_outside || s.antialias) && sum != 0)
    for (int64_t k = 0; k < width; ++k) weight[k * step] /= sum;
}

/// Whether output i lies outside of the region and takes the extrapolation value.
INFOPT_ANYWHERE bool lies_outside(const Sampling& s, const AxisPlan& a, int64_t i) {
  if (s.coordinates != Coordinates::TfCropAndResize) return false;
  const float x = source_of(s, a, static_cast<float>(i));
  return x < 0 || x > static_cast<float>(a.in - 1);
}

}  // namespace infopt
