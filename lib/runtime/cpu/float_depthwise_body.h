// The one text of the depthwise convolutions, compiled once for each instruction set: the includer has vectors (vectors_*.h) and defines
// kPixels (at most so many at once), load_some() and store_some().
#include <algorithm>

#include "lib/runtime/cpu/float_depthwise.h"

namespace infopt::cpu {
namespace {

/// Some pixels of an output row, in one vector of channels.
struct Strip {
  const float* x;  ///< the first kernel row that is inside, at column 0
  const float* weights;
  int64_t kernel_rows, column;  ///< of the kernel, those inside; the input column of the first pixel's first tap, maybe outside
  int64_t channels, pixels;     ///< to be stored
  const float* bias;
  float* y;
};

/// Checked: columns may be outside, and pixels and channels fewer.
template <int T, bool Checked>
INFOPT_TILE inline __attribute__((always_inline)) void finish(const DepthwiseImage& im, const Strip& s, Vec (&sums)[T]) {
  float* const y = s.y;
  const int64_t step = im.channels, pixels = s.pixels, channels = s.channels;
  if (im.accumulate) {
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t)
      if (!Checked || t < pixels) sums[t] += Checked ? load_some(y + t * step, channels) : load(y + t * step);
  }
  if (im.bounded) {
    const Vec low = im.low - Vec{}, high = im.high - Vec{};
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) {
      sums[t] = sums[t] < low ? low : sums[t];
      sums[t] = sums[t] > high ? high : sums[t];
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < T; ++t) {
    if (!Checked) store(y + t * step, sums[t]);
    else if (t < pixels) store_some(y + t * step, sums[t], channels);
  }
}

/// A kernel K wide with steps of S.
template <int K, int S, int T, bool Checked>
INFOPT_TILE void slide(const DepthwiseImage& im, const Strip& s) {
  Vec sums[T];
  const Vec start = !s.bias ? Vec{} : Checked ? load_some(s.bias, s.channels) : load(s.bias);
#pragma GCC unroll 16
  for (int t = 0; t < T; ++t) sums[t] = start;
  const float *x = s.x + s.column * im.channels, *w = s.weights;
  const int64_t step = im.channels;
  for (int64_t ky = 0; ky < s.kernel_rows; ++ky, x += im.width * step, w += K * kDepthwiseBlock) {
    Vec taps[K];
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) taps[k] = load(w + k * kDepthwiseBlock);
    constexpr int kSeen = (T - 1) * S + K;
#pragma GCC unroll 32
    for (int i = 0; i < kSeen; ++i) {
      if (Checked && static_cast<uint64_t>(s.column + i) >= static_cast<uint64_t>(im.width)) continue;
      const Vec pixel = Checked ? load_some(x + i * step, s.channels) : load(x + i * step);
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t)
        if (i - t * S >= 0 && i - t * S < K) sums[t] = fma_of(pixel, taps[i - t * S], sums[t]);
    }
  }
  finish<T, Checked>(im, s, sums);
}

/// Any kernel, any step.
template <int T, bool Checked>
INFOPT_TILE void walk(const DepthwiseImage& im, const Strip& s) {
  Vec sums[T];
  const Vec start = !s.bias ? Vec{} : Checked ? load_some(s.bias, s.channels) : load(s.bias);
#pragma GCC unroll 16
  for (int t = 0; t < T; ++t) sums[t] = start;
  const int64_t step = im.channels;
  const float* w = s.weights;
  for (int64_t ky = 0; ky < s.kernel_rows; ++ky)
    for (int64_t kx = 0; kx < im.kernel_width; ++kx, w += kDepthwiseBlock) {
      const Vec tap = load(w);
      const int64_t column = s.column + kx;
      const float* x = s.x + (ky * im.width + column) * step;
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) {
        const int64_t at = t * im.stride_x;
        if (Checked && static_cast<uint64_t>(column + at) >= static_cast<uint64_t>(im.width)) continue;
        sums[t] = fma_of(Checked ? load_some(x + at * step, s.channels) : load(x + at * step), tap, sums[t]);
      }
    }
  finish<T, Checked>(im, s, sums);
}

/// K = 0: any.
template <int K, int S, int T, bool Checked>
INFOPT_TILE void strip(const DepthwiseImage& im, const Strip& s) {
  if constexpr (K == 0) walk<T, Checked>(im, s);
  else slide<K, S, T, Checked>(im, s);
}

template <int K, int S>
INFOPT_TILE void segment(const DepthwiseImage& im, int64_t row, int64_t first, int64_t count) {
  const int64_t top = row * im.stride_y - im.pad_y, taps = im.kernel_height * im.kernel_width;
  const int64_t begin = std::clamp<int64_t>(-top, 0, im.kernel_height), end = std::clamp<int64_t>(im.height - top, begin, im.kernel_height);
  const int64_t reach = (kPixels - 1) * im.stride_x + im.kernel_width;
  const float* rows = im.x + (begin < end ? (top + begin) * im.width * im.channels : 0);
  Strip s{};
  s.kernel_rows = end - begin;
  for (int64_t p = first; p < first + count; p += s.pixels) {
    s.pixels = std::min<int64_t>(kPixels, first + count - p);
    s.column = p * im.stride_x - im.pad_x;
    const bool inside = s.pixels == kPixels && s.column >= 0 && s.column + reach <= im.width;
    float* y = im.y + (row * im.out_width + p) * im.channels;
    for (int64_t c = 0; c < im.channels; c += kLanes) {
      s.x = rows + c;
      s.weights = im.weights + (c / kDepthwiseBlock * taps + begin * im.kernel_width) * kDepthwiseBlock + c % kDepthwiseBlock;
      s.channels = std::min(kLanes, im.channels - c);
      s.bias = im.bias ? im.bias + c : nullptr;
      s.y = y + c;
      if (inside && s.channels == kLanes) strip<K, S, kPixels, false>(im, s);
      else if (s.pixels <= kPixels / 2) strip<K, S, kPixels / 2, true>(im, s);
      else strip<K, S, kPixels, true>(im, s);
    }
  }
}

template <int K>
INFOPT_TILE void of_width(const DepthwiseImage& im, int64_t row, int64_t first, int64_t count) {
  if (im.stride_x == 1) segment<K, 1>(im, row, first, count);
  else if (im.stride_x == 2) segment<K, 2>(im, row, first, count);
  else segment<0, 0>(im, row, first, count);
}

INFOPT_TILE void segment_any(const DepthwiseImage& im, int64_t row, int64_t first, int64_t count) {
  switch (im.kernel_width) {
    case 3: return of_width<3>(im, row, first, count);
    case 5: return of_width<5>(im, row, first, count);
    case 7: return of_width<7>(im, row, first, count);
    case 9: return of_width<9>(im, row, first, count);
    default: return segment<0, 0>(im, row, first, count);
  }
}

}  // namespace
}  // namespace infopt::cpu
