#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "lib/base/float_math.h"
#include "lib/base/simd.h"
#include "lib/runtime/cpu/int8_elementwise.h"

namespace infopt::cpu {
namespace {

constexpr int64_t kLanes = 64;  // channels at a time

// Vectors of the compiler's, which it splits as the instruction set needs: what is summed up stays in registers.
using Bytes = uint8_t __attribute__((vector_size(32)));
using HalfBytes = uint8_t __attribute__((vector_size(16)));
using Words = uint16_t __attribute__((vector_size(32)));

/// The greatest of `count` > 0 rows for 64 channels.
INFOPT_SIMD void max_lanes(const uint8_t* const* rows, int64_t count, int64_t first, uint8_t flip, uint8_t* y) {
  Bytes low{}, high{};
  for (int64_t r = 0; r < count; ++r) {
    Bytes a, b;
    std::memcpy(&a, rows[r] + first, sizeof a);
    std::memcpy(&b, rows[r] + first + 32, sizeof b);
    a ^= flip;
    b ^= flip;
    low = a > low ? a : low;
    high = b > high ? b : high;
  }
  low ^= flip;
  high ^= flip;
  std::memcpy(y + first, &low, sizeof low);
  std::memcpy(y + first + 32, &high, sizeof high);
}

/// The same for sixteen channels, and for fewer than that.
INFOPT_SIMD void max_sixteen(const uint8_t* const* rows, int64_t count, int64_t first, uint8_t flip, uint8_t* y) {
  HalfBytes most{};
  for (int64_t r = 0; r < count; ++r) {
    HalfBytes a;
    std::memcpy(&a, rows[r] + first, sizeof a);
    a ^= flip;
    most = a > most ? a : most;
  }
  most ^= flip;
  std::memcpy(y + first, &most, sizeof most);
}
void max_few(const uint8_t* const* rows, int64_t count, int64_t first, int64_t channels, uint8_t flip, uint8_t* y) {
  for (int64_t c = first; c < channels; ++c) {
    uint8_t most = 0;
    for (int64_t r = 0; r < count; ++r) most = std::max<uint8_t>(most, rows[r][c] ^ flip);
    y[c] = most ^ flip;
  }
}
void max_rest(const uint8_t* const* rows, int64_t count, int64_t first, int64_t channels, uint8_t flip, uint8_t* y) {
  int64_t c = first;
  for (; c + 16 <= channels; c += 16) max_sixteen(rows, count, c, flip, y);
  if (c == channels) return;
  if (channels < 16) max_few(rows, count, c, channels, flip, y);
  else max_sixteen(rows, count, channels - 16, flip, y);  // some of them twice
}

INFOPT_INLINE void add_words(Words (&words)[4], const uint8_t* row, uint8_t flip) {
  for (int i = 0; i < 4; ++i) {
    HalfBytes bytes;
    std::memcpy(&bytes, row + 16 * i, sizeof bytes);
    words[i] += __builtin_convertvector(bytes ^ flip, Words);
  }
}
INFOPT_INLINE void add_to_sums(const Words (&words)[4], int32_t* sums) {
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 16; ++j) sums[16 * i + j] += words[i][j];
}

constexpr int64_t kMostRows = 257;  // so many bytes fit 16 bits

/// sums[0…64) += the bytes, flipped, of `count` rows that lie `stride` apart.
INFOPT_SIMD void sum_lanes(const uint8_t* row, int64_t count, int64_t stride, uint8_t flip, int32_t* sums) {
  for (int64_t r = 0; r < count;) {
    Words words[4] = {};
    for (const int64_t end = std::min(count, r + kMostRows); r < end; ++r) add_words(words, row + r * stride, flip);
    add_to_sums(words, sums);
  }
}
/// As sum_lanes, of rows from `first` on.
INFOPT_SIMD void sum_rows(const uint8_t* const* rows, int64_t count, int64_t first, uint8_t flip, int32_t* sums) {
  for (int64_t r = 0; r < count;) {
    Words words[4] = {};
    for (const int64_t end = std::min(count, r + kMostRows); r < end; ++r) add_words(words, rows[r] + first, flip);
    add_to_sums(words, sums);
  }
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

void add_row(const uint8_t* row, int64_t n, uint8_t flip, int32_t* sums) {
  for (int64_t i = 0; i < n; ++i) sums[i] += row[i] ^ flip;
}

/// The pixels of windows: where each lies behind the window's first, and where a window may begin to lie within the image.
class Windows {
 public:
  Windows(const Int8Window& window, const Int8Extent& extent) : w_(window), in_(extent.in) {
    for (int64_t z = 0; z < w_.kernel[0]; ++z)
      for (int64_t y = 0; y < w_.kernel[1]; ++y)
        for (int64_t x = 0; x < w_.kernel[2]; ++x) {
          steps_.push_back({z * w_.dilations[0], y * w_.dilations[1], x * w_.dilations[2]});
          offsets_.push_back(offset(steps_.back()));
        }
    pixels_.resize(steps_.size());
  }
  /// Pointers to those pixels of the window that begins at `first` that lie within the image; their count goes to `count`.
  const uint8_t* const* at(const uint8_t* image, const Int8Axes& first, int64_t& count) {
    count = 0;
    if (inside(first) && inside({first[0] + steps_.back()[0], first[1] + steps_.back()[1], first[2] + steps_.back()[2]})) {
      const uint8_t* begin = image + offset(first);
      for (const int64_t o : offsets_) pixels_[static_cast<size_t>(count++)] = begin + o;
      return pixels_.data();
    }
    for (const Int8Axes& step : steps_) {
      const Int8Axes pixel{first[0] + step[0], first[1] + step[1], first[2] + step[2]};
      if (inside(pixel)) pixels_[static_cast<size_t>(count++)] = image + offset(pixel);
    }
    return pixels_.data();
  }

 private:
  bool inside(const Int8Axes& p) const { return p[0] >= 0 && p[0] < in_[0] && p[1] >= 0 && p[1] < in_[1] && p[2] >= 0 && p[2] < in_[2]; }
  int64_t offset(const Int8Axes& p) const { return ((p[0] * in_[1] + p[1]) * in_[2] + p[2]) * w_.channels; }

  const Int8Window& w_;
  Int8Axes in_;
  std::vector<Int8Axes> steps_;
  std::vector<int64_t> offsets_;
  std::vector<const uint8_t*> pixels_;
};

/// The pixels of a window that lie within the image and its pads: ceil_mode lets the last ones reach beyond.
int64_t padded_pixels(const Int8Window& w, const Int8Axes& in, const Int8Axes& first) {
  int64_t all = 1;
  for (size_t i = 0; i < 3; ++i)
    all *= std::clamp<int64_t>((in[i] + w.pads_end[i] - first[i] + w.dilations[i] - 1) / w.dilations[i], 0, w.kernel[i]);
  return std::max<int64_t>(all, 1);
}

/// Calls f(pointers to the pixels of a window within the image, their count, pixel of the output, where the window begins) along output
/// lines [first, last).
template <class F>
void each_window(const Int8Window& w, const Int8Extent& extent, const void* src, int64_t first, int64_t last, F f) {
  const Int8Axes &in = extent.in, &out = extent.out;
  Windows windows(w, extent);
  for (int64_t line = first; line < last; ++line) {
    const int64_t plane = line / out[1];
    const uint8_t* image = static_cast<const uint8_t*>(src) + plane / out[0] * in[0] * in[1] * in[2] * w.channels;
    Int8Axes begin{plane % out[0] * w.strides[0] - w.pads_begin[0], line % out[1] * w.strides[1] - w.pads_begin[1], -w.pads_begin[2]};
    for (int64_t column = 0; column < out[2]; ++column, begin[2] += w.strides[2]) {
      int64_t count;
      const uint8_t* const* pixels = windows.at(image, begin, count);
      f(pixels, count, line * out[2] + column, begin);
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
  each_window(window, extent, src, first, last, [&](const uint8_t* const* pixels, int64_t count, int64_t to, const Int8Axes&) {
    uint8_t* y = static_cast<uint8_t*>(dst) + to * channels;
    for (int64_t c = 0; c < whole; c += kLanes) max_lanes(pixels, count, c, flip, y);
    max_rest(pixels, count, whole, channels, flip, y);
  });
}

void int8_average_pool(const Int8Window& window, const Int8Extent& extent, const Int8Mean& how, bool include_pad, const void* src,
                       void* dst, int64_t first, int64_t last) {
  const Rounding rounding(how);
  const int64_t channels = window.channels, all = window.kernel[0] * window.kernel[1] * window.kernel[2];
  each_window(window, extent, src, first, last, [&](const uint8_t* const* pixels, int64_t count, int64_t to, const Int8Axes& begin) {
    const int64_t divisor = count == all ? all : include_pad ? padded_pixels(window, extent.in, begin) : std::max<int64_t>(count, 1);
    const float ratio = how.ratio / static_cast<float>(divisor);
    for (int64_t c = 0; c < channels; c += kLanes) {
      int32_t sums[kLanes] = {};
      const int64_t n = std::min(kLanes, channels - c);
      if (n == kLanes) sum_rows(pixels, count, c, rounding.flip, sums);
      else
        for (int64_t p = 0; p < count; ++p) add_row(pixels[p] + c, n, rounding.flip, sums);
      store_means(sums, n, rounding, static_cast<int32_t>(count * rounding.input_zero), ratio,
                  static_cast<uint8_t*>(dst) + to * channels + c);
    }
  });
}

}  // namespace infopt::cpu
