// GridSample, in one to any number of spatial dimensions.
#include "lib/ops/grid_sample.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

/// Mirrors x at both ends until it lies within [low, high].
double reflect(double x, double low, double high) {
  const double range = high - low;
  if (!(range > 0)) return low;
  const double beyond = x < low ? low - x : x > high ? x - high : 0;
  if (beyond == 0) return x;
  const double turns = std::floor(beyond / range), rest = beyond - turns * range;
  const bool even = std::fmod(turns, 2) == 0;
  return (x < low) == even ? low + rest : high - rest;
}

/// What one axis contributes to a sample: up to four places (-1: zero) and weights.
struct AxisTaps {
  int count = 0;
  std::array<int64_t, 4> place{};
  std::array<double, 4> weight{};
};

AxisTaps axis_taps(const GridSpec& s, double normalized, int64_t n) {
  const auto length = static_cast<double>(n);
  const double low = s.align_corners ? 0 : -0.5, high = s.align_corners ? length - 1 : length - 0.5;
  double x = s.align_corners ? (normalized + 1) / 2 * (length - 1) : ((normalized + 1) * length - 1) / 2;
  if (!(std::abs(x) < 1e15)) x = std::isnan(x) ? -1e15 : std::copysign(1e15, x);
  if (s.mode == GridSampling::Nearest) x = std::nearbyint(x);
  if (x < low || x > high) {
    // A cubic's taps are clamped one by one below, as engines do, not their centre.
    if (s.border == GridBorder::Border && s.mode != GridSampling::Cubic) x = std::clamp(x, 0.0, length - 1);
    if (s.border == GridBorder::Reflection) x = reflect(x, low, high);
  }
  AxisTaps t;
  const auto put = [&](int64_t p, double weight) {
    if (s.border == GridBorder::Border) p = std::clamp<int64_t>(p, 0, n - 1);
    if (s.border == GridBorder::Reflection) p = std::clamp<int64_t>(static_cast<int64_t>(reflect(static_cast<double>(p), low, high)), 0, n - 1);
    t.place[at(t.count)] = p < 0 || p >= n ? -1 : p;
    t.weight[at(t.count++)] = weight;
  };
  const double whole = std::floor(x), f = x - whole;
  const auto p = static_cast<int64_t>(whole);
  if (s.mode == GridSampling::Nearest) {
    put(static_cast<int64_t>(x), 1);
  } else if (s.mode == GridSampling::Linear) {
    put(p, 1 - f);
    put(p + 1, f);
  } else {
    const double a = -0.75;
    const auto far = [a](double d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };
    const auto near = [a](double d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };
    put(p - 1, far(f + 1));
    put(p, near(f));
    put(p + 1, near(1 - f));
    put(p + 2, far(2 - f));
  }
  return t;
}

struct Samples {
  std::vector<int64_t> place;  ///< within one channel
  std::vector<double> weight;
};

/// The product of the axes' taps, zeros left out.
Samples combine(const std::vector<AxisTaps>& axes, const Shape& spatial) {
  Samples all{{0}, {1}};
  for (size_t d = 0; d < axes.size(); ++d) {
    Samples next;
    for (size_t i = 0; i < all.place.size(); ++i)
      for (size_t k = 0; k < at(axes[d].count); ++k) {
        if (axes[d].place[k] < 0) continue;
        next.place.push_back(all.place[i] * spatial[d] + axes[d].place[k]);
        next.weight.push_back(all.weight[i] * axes[d].weight[k]);
      }
    all = std::move(next);
  }
  return all;
}

template <class T>
void sample(const GridSpec& s, const T* x, const std::vector<double>& grid, T* y, const Shape& in, int64_t points) {
  const Shape spatial(in.begin() + 2, in.end());
  const auto dims = static_cast<int64_t>(spatial.size());
  const int64_t channel = product(spatial, 0, spatial.size()), channels = in[1];
  std::vector<AxisTaps> axes(at(dims));
  for (int64_t n = 0; n < in[0]; ++n) {
    for (int64_t p = 0; p < points; ++p) {
      // The grid's coordinates come last axis first.
      for (int64_t d = 0; d < dims; ++d) axes[at(d)] = axis_taps(s, grid[at((n * points + p) * dims + dims - 1 - d)], spatial[at(d)]);
      const Samples taps = combine(axes, spatial);
      for (int64_t c = 0; c < channels; ++c) {
        const T* map = x + (n * channels + c) * channel;
        double sum = 0;
        for (size_t k = 0; k < taps.place.size(); ++k) sum += taps.weight[k] * static_cast<double>(map[taps.place[k]]);
        y[(n * channels + c) * points + p] = static_cast<T>(sum);
      }
    }
  }
}

std::unique_ptr<Kernel> grid_sample(const KernelSpec& spec) {
  return make_kernel([s = GridSpec::of(spec)](KernelContext& c) {
    const Tensor &x = c.in(0), &grid = c.in(1);
    const Shape shape = grid_result(x, grid);
    const int64_t points = product(grid.shape(), 1, grid.shape().size() - 1);
    const std::vector<double> places = to_vector<double>(grid);
    if (x.dtype() == DType::F32) {
      Tensor& y = c.out(0, DType::F32, shape);
      return sample(s, x.data<float>(), places, y.mutable_data<float>(), x.shape(), points);
    }
    const Tensor wide = cast(x, DType::F64);
    Tensor y(DType::F64, shape);
    sample(s, wide.data<double>(), places, y.mutable_data<double>(), x.shape(), points);
    c.set(0, cast(y, x.dtype()));
  });
}

}  // namespace

GridSpec GridSpec::of(const KernelSpec& spec) {
  GridSpec s;
  const std::string mode = spec.node.s("mode", spec.opset < 20 ? "bilinear" : "linear"), border = spec.node.s("padding_mode", "zeros");
  if (mode == "nearest") s.mode = GridSampling::Nearest;
  else if (mode == "cubic" || mode == "bicubic") s.mode = GridSampling::Cubic;
  else if (mode != "linear" && mode != "bilinear") malformed("GridSample has no mode '" + mode + "'");
  if (border == "border") s.border = GridBorder::Border;
  else if (border == "reflection") s.border = GridBorder::Reflection;
  else if (border != "zeros") malformed("GridSample has no padding mode '" + border + "'");
  s.align_corners = spec.node.i("align_corners", 0) != 0;
  return s;
}

Shape grid_result(const Tensor& x, const Tensor& grid) {
  const int64_t dims = x.rank() - 2;
  if (dims < 1 || grid.rank() != x.rank() || grid.dim(0) != x.dim(0) || grid.dim(-1) != dims)
    malformed("GridSample of shape " + to_string(x.shape()) + " with a grid of shape " + to_string(grid.shape()));
  Shape shape{x.dim(0), x.dim(1)};
  shape.insert(shape.end(), grid.shape().begin() + 1, grid.shape().end() - 1);
  if (x.size() == 0 && element_count(shape) != 0) malformed("GridSample of an empty tensor of shape " + to_string(x.shape()));
  return shape;
}

std::vector<OpDef> op_grid_sample() { return {{.name = "GridSample", .since = 16, .cpu = &grid_sample}}; }

}  // namespace infopt
