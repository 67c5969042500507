#include "lib/runtime/cpu/depthwise_gradient.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "lib/base/simd.h"

namespace infopt::cpu {
namespace {

using Lanes = float __attribute__((vector_size(64)));
constexpr int64_t kLanes = 16, kWide = 4 * kLanes;  // channels at once: four sums that don't wait for each other

/// One row of x against one of dy: `count` places, `x_step` floats apart in x and `y_step` in dy; one sum for each of kWide channels.
INFOPT_SIMD void add_products_wide(const float* x, int64_t x_step, const float* dy, int64_t y_step, int64_t count, float* sums) {
  Lanes s[4];
  std::memcpy(s, sums, sizeof s);
  for (int64_t i = 0; i < count; ++i) {
    for (int l = 0; l < 4; ++l) {
      Lanes a, b;
      std::memcpy(&a, x + i * x_step + l * kLanes, sizeof a);
      std::memcpy(&b, dy + i * y_step + l * kLanes, sizeof b);
      s[l] += a * b;
    }
  }
  std::memcpy(sums, s, sizeof s);
}

INFOPT_SIMD void add_products(const float* x, int64_t x_step, const float* dy, int64_t y_step, int64_t count, int64_t channels, float* sums) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t c = 0; c < channels; ++c) sums[c] += x[i * x_step + c] * dy[i * y_step + c];
}

}  // namespace

bool is_depthwise(const ConvGeometry& geometry, const Shape& x, const Shape& weights) {
  return x.size() == 4 && !geometry.transposed && geometry.groups == x[1] && geometry.groups > 1 && weights[0] == x[1] && weights[1] == 1;
}

void depthwise_by_weights(const ConvGeometry& g, const Tensor& x, const Tensor& dy, Tensor& dw) {
  const int64_t batch = x.dim(0), channels = x.dim(1), height = x.dim(2), width = x.dim(3), rows = dy.dim(2), columns = dy.dim(3), kh = dw.dim(2), kw = dw.dim(3);
  const int64_t stride = g.strides[1];
  std::vector<float> sums(static_cast<size_t>(kh * kw * kWide));
  for (int64_t from = 0; from < channels; from += kWide) {
    const int64_t n = std::min(kWide, channels - from);
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (int64_t r = 0; r < batch * rows; ++r)
      for (int64_t tap = 0; tap < kh * kw; ++tap) {
        const int64_t row = r % rows * g.strides[0] + tap / kw * g.dilations[0] - g.pads_begin[0], right = tap % kw * g.dilations[1] - g.pads_begin[1];
        // The output columns whose input column lies inside.
        const int64_t first = right < 0 ? (-right + stride - 1) / stride : 0, last = width - 1 - right < 0 ? -1 : std::min(columns - 1, (width - 1 - right) / stride);
        if (row < 0 || row >= height || first > last) continue;
        const float* px = x.data<float>() + ((r / rows * height + row) * width + first * stride + right) * channels + from;
        const float* py = dy.data<float>() + (r * columns + first) * channels + from;
        float* to = sums.data() + tap * kWide;
        if (n == kWide) add_products_wide(px, stride * channels, py, channels, last - first + 1, to);
        else add_products(px, stride * channels, py, channels, last - first + 1, n, to);
      }
    for (int64_t c = 0; c < n; ++c)
      for (int64_t tap = 0; tap < kh * kw; ++tap) dw.mutable_data<float>()[(from + c) * kh * kw + tap] = sums[static_cast<size_t>(tap * kWide + c)];
  }
}

}  // namespace infopt::cpu
