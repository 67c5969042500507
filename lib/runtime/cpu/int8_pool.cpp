#include <algorithm>
#include <bit>
#include <limits>
#include <vector>

#include "lib/base/float_math.h"
#include "lib/base/simd.h"
#include "lib/runtime/cpu/int8_elementwise.h"

namespace infopt::cpu {
namespace {

constexpr int64_t kLanes = 64;  // channels at a time

/// The greatest of `count` > 0 rows for 64 channels.
INFOPT_SIMD void max_lanes(const uint8_t* const* rows, int64_t count, int64_t first, uint8_t flip, uint8_t* y) {
  uint8_t most[kLanes] = {};
  for (int64_t r = 0; r < count; ++r) {
    const uint8_t* row = rows[r] + first;
    for (int64_t i = 0; i < kLanes; ++i) {
      const uint8_t v = row[i] ^ flip;
      most[i] = v > most[i] ? v : most[i];
    }
  }
  for (int64_t i = 0; i < kLanes; ++i) y[first + i] = most[i] ^ flip;
}

void max_rest(const uint8_t* const* rows, int64_t count, int64_t first, int64_t channels, uint8_t flip, uint8_t* y) {
  for (int64_t c = first; c < channels; ++c) {
    uint8_t most = 0;
    for (int64_t r = 0; r < count; ++r) most = std::max<uint8_t>(most, rows[r][c] ^ flip);
    y[c] = most ^ flip;
  }
}

/// sums[0…64) += the codes, as uint8, of `count` rows that lie `stride` apart.
INFOPT_SIMD void sum_lanes(const uint8_t* row, int64_t count, int64_t stride, uint8_t flip, int32_t* sums) {
  for (int64_t r = 0; r < count; ++r, row += stride)
    for (int64_t i = 0; i < kLanes; ++i) sums[i] += row[i] ^ flip;
}

/// A sum of bytes becomes a code: the bytes are codes raised by `flip`.
struct Rounding {
  uint8_t flip;
  int32_t input_zero, zero;
  float low, high;
  explicit Rounding(const Int8Mean& how) : flip(how.input == DType::I8 ? 0x80 : 0), input_zero(how.input_zero + flip), zero(how.zero) {
    low = static_cast<float>((how.output == DType::I8 ? -128 : 0) - zero);
    high = low + 255.0f;
  }
};

INFOPT_SIMD void store_means(const int32_t* sums, int64_t n, const Rounding& r, int32_t zeros, float ratio, uint8_t* y) {
  for (int64_t i = 0; i < n; ++i) {
    float v = static_cast<float>(sums[i] - zeros) * ratio;
    v = v > r.low ? v : r.low;
    v = v < r.high ? v : r.high;
    y[i] = static_cast<uint8_t>(std::bit_cast<uint32_t>(v + detail::kRounder) - std::bit_cast<uint32_t>(detail::kRounder) +
                                static_cast<uint32_t>(r.zero));
  }
}

/// Σ over rows of `n` ≤ 64 channels.
void add_row(const uint8_t* row, int64_t n, uint8_t flip, int32_t* sums) {
  if (n == kLanes) return sum_lanes(row, 1, 0, flip, sums);
  for (int64_t i = 0; i < n; ++i) sums[i] += row[i] ^ flip;
}

/// Calls f(pointers to the pixels of a window inside of the image, pixel of the output) along output lines [first, last).
template <class F>
void each_window(const Int8Window& w, const Int8Extent& extent, const void* src, int64_t first, int64_t last, F f) {
  const Int8Axes &in = extent.in, &out = extent.out;
  std::vector<const uint8_t*> pixels(static_cast<size_t>(w.kernel[0] * w.kernel[1] * w.kernel[2]));
  for (int64_t line = first; line < last; ++line) {
    const int64_t y0 = line % out[1] * w.strides[1] - w.pads_begin[1], plane = line / out[1];
    const int64_t z0 = plane % out[0] * w.strides[0] - w.pads_begin[0];
    const uint8_t* image = static_cast<const uint8_t*>(src) + plane / out[0] * in[0] * in[1] * in[2] * w.channels;
    for (int64_t column = 0; column < out[2]; ++column) {
      const int64_t x0 = column * w.strides[2] - w.pads_begin[2];
      size_t count = 0;
      for (int64_t z = z0, kz = 0; kz < w.kernel[0]; ++kz, z += w.dilations[0])
        for (int64_t y = y0, ky = 0; ky < w.kernel[1]; ++ky, y += w.dilations[1]) {
          if (z < 0 || z >= in[0] || y < 0 || y >= in[1]) continue;
          for (int64_t x = x0, kx = 0; kx < w.kernel[2]; ++kx, x += w.dilations[2])
            if (x >= 0 && x < in[2]) pixels[count++] = image + ((z * in[1] + y) * in[2] + x) * w.channels;
        }
      f(pixels.data(), static_cast<int64_t>(count), line * out[2] + column);
    }
  }
}

}  // namespace

void int8_global_average(const Int8Mean& how, const void* image, int64_t pixels, int64_t channels, void* y) {
  const Rounding rounding(how);
  const uint8_t* from = static_cast<const uint8_t*>(image);
  const int32_t zeros = static_cast<int32_t>(pixels * rounding.input_zero);
  for (int64_t c = 0; c < channels; c += kLanes) {
    int32_t sums[kLanes] = {};
    const int64_t n = std::min(kLanes, channels - c);
    if (n == kLanes) sum_lanes(from + c, pixels, channels, rounding.flip, sums);
    else
      for (int64_t p = 0; p < pixels; ++p) add_row(from + p * channels + c, n, rounding.flip, sums);
    store_means(sums, n, rounding, zeros, how.ratio, static_cast<uint8_t*>(y) + c);
  }
}

void int8_max_pool(const Int8Window& window, const Int8Extent& extent, DType dtype, const void* src, void* dst, int64_t first,
                   int64_t last) {
  const int64_t channels = window.channels, whole = channels / kLanes * kLanes;
  const uint8_t flip = dtype == DType::I8 ? 0x80 : 0;
  each_window(window, extent, src, first, last, [&](const uint8_t* const* pixels, int64_t count, int64_t to) {
    uint8_t* y = static_cast<uint8_t*>(dst) + to * channels;
    for (int64_t c = 0; c < whole; c += kLanes) max_lanes(pixels, count, c, flip, y);
    max_rest(pixels, count, whole, channels, flip, y);
  });
}

void int8_average_pool(const Int8Window& window, const Int8Extent& extent, const Int8Mean& how, bool include_pad, const void* src,
                       void* dst, int64_t first, int64_t last) {
  const Rounding rounding(how);
  const int64_t channels = window.channels, all = window.kernel[0] * window.kernel[1] * window.kernel[2];
  each_window(window, extent, src, first, last, [&](const uint8_t* const* pixels, int64_t count, int64_t to) {
    const float ratio = how.ratio / static_cast<float>(include_pad ? all : std::max<int64_t>(count, 1));
    for (int64_t c = 0; c < channels; c += kLanes) {
      int32_t sums[kLanes] = {};
      const int64_t n = std::min(kLanes, channels - c);
      for (int64_t p = 0; p < count; ++p) add_row(pixels[p] + c, n, rounding.flip, sums);
      store_means(sums, n, rounding, static_cast<int32_t>(count * rounding.input_zero), ratio,
                  static_cast<uint8_t*>(dst) + to * channels + c);
    }
  });
}

}  // namespace infopt::cpu
