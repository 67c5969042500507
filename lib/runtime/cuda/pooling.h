// Kernels of poolings, in either layout: plain tensors are images of one channel. What a pooling makes of a window is an Op:
//   Sum none(); void add(Sum&, T); void merge(Sum&, Sum); R result(Sum, int inside, int padded)
// `inside` are the window's pixels within the image, `padded` those within the image and its pads.
#pragma once
#include <algorithm>

#include "lib/ops/op.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/lanes.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/window.h"

namespace infopt::cuda {

/// Up to three spatial axes, missing ones in front as size 1.
struct PoolAxes {
  int in[3], out[3], kernel[3], stride[3], dilation[3], begin[3], end[3];

  /// A window that is the whole image.
  bool global() const {
    for (int i = 0; i < 3; ++i)
      if (out[i] != 1 || kernel[i] != in[i] || (dilation[i] != 1 && kernel[i] != 1) || begin[i] != 0 || end[i] != 0) return false;
    return true;
  }
};

/// Throws Error(Unsupported) where 32 bits don't hold it.
inline PoolAxes pool_axes(const Window& w, const Shape& spatial) {
  PoolAxes p;
  const size_t n = spatial.size();
  const auto small = [](int64_t v) {
    if (v > (int64_t{1} << 30) || v < -(int64_t{1} << 30)) throw Error(ErrorKind::Unsupported, "a pooling with a size of " + std::to_string(v));
    return static_cast<int>(v);
  };
  for (size_t i = 0; i < 3; ++i) {
    p.in[i] = p.out[i] = p.kernel[i] = p.stride[i] = p.dilation[i] = 1;
    p.begin[i] = p.end[i] = 0;
    if (i + n < 3) continue;
    const size_t a = i + n - 3;
    p.in[i] = small(spatial[a]), p.out[i] = small(w.out[a]), p.kernel[i] = small(w.kernel[a]), p.stride[i] = small(w.strides[a]), p.dilation[i] = small(w.dilations[a]);
    p.begin[i] = small(w.pads_begin[a]), p.end[i] = small(w.pads_end[a]);
    small(w.out[a] * w.strides[a] + w.kernel[a] * w.dilations[a]);
  }
  return p;
}

/// One axis of a window: where it begins, and the taps [first, last) that lie within the image.
struct PoolTaps {
  int at, first, last, padded;
  INFOPT_DEVICE PoolTaps(const PoolAxes& p, int axis, int o) {
    const int d = p.dilation[axis], kernel = p.kernel[axis];
    at = o * p.stride[axis] - p.begin[axis];
    first = at < 0 ? (d - 1 - at) / d : 0;
    last = taps_below(p.in[axis] - at, d, kernel);
    padded = taps_below(p.in[axis] + p.end[axis] - at, d, kernel);
    if (first > last) first = last;
  }
  INFOPT_DEVICE static int taps_below(int room, int dilation, int kernel) {
    const int n = room <= 0 ? 0 : (room + dilation - 1) / dilation;
    return n < kernel ? n : kernel;
  }
};

constexpr int kPoolThreads = 256;

/// Where an item of a pooling's result lies: counted by image, pixel, group of channels.
template <class I> struct PoolItems {
  Divider<I> groups, out[3];
  I count = 0;
  PoolItems(const PoolAxes& p, int64_t images, int64_t groups_) : groups(groups_), count(static_cast<I>(images * p.out[0] * p.out[1] * p.out[2] * groups_)) {
    for (int i = 0; i < 3; ++i) out[i] = Divider<I>(p.out[i]);
  }
};

/// One item a thread: V channels of one pixel.
template <class Op, class T, class R, int V, class I> __global__ void pool_windows(Op op, const T* x, R* y, PoolAxes p, PoolItems<I> items) {
  for (I e = static_cast<I>(blockIdx.x) * kPoolThreads + threadIdx.x; e < items.count; e += static_cast<I>(gridDim.x) * kPoolThreads) {
    I group = e;
    I rest = divide_off(group, items.groups), place[3];
    for (int i = 2; i >= 0; --i) {
      place[i] = rest;
      rest = divide_off(place[i], items.out[i]);
    }
    const PoolTaps d(p, 0, static_cast<int>(place[0])), h(p, 1, static_cast<int>(place[1])), w(p, 2, static_cast<int>(place[2]));
    typename Op::Sum sum[V];
    for (int k = 0; k < V; ++k) sum[k] = op.none();
    const int64_t step = static_cast<int64_t>(items.groups.d);
    for (int a = d.first; a < d.last; ++a)
      for (int b = h.first; b < h.last; ++b) {
        const int64_t line = ((static_cast<int64_t>(rest) * p.in[0] + d.at + a * p.dilation[0]) * p.in[1] + h.at + b * p.dilation[1]) * p.in[2];
        const T* from = x + ((line + w.at) * step + static_cast<int64_t>(group)) * V;
        for (int c = w.first; c < w.last; ++c) {
          const Lanes<T, V> lanes = load_lanes<V>(from + static_cast<int64_t>(c) * p.dilation[2] * step * V);
          for (int k = 0; k < V; ++k) op.add(sum[k], lanes.v[k]);
        }
      }
    const int inside = (d.last - d.first) * (h.last - h.first) * (w.last - w.first), padded = d.padded * h.padded * w.padded;
    Lanes<R, V> out;
    for (int k = 0; k < V; ++k) out.v[k] = op.result(sum[k], inside, padded);
    store_lanes<V>(y + static_cast<int64_t>(e) * V, out);
  }
}

constexpr int kPoolSlices = 8;

/// Whole images of several channels: a block's rows of threads share the pixels of 32 groups of channels.
template <class Op, class T, class R, int V> __global__ void pool_images(Op op, const T* x, R* y, int64_t images, int pixels, int groups) {
  __shared__ typename Op::Sum part[kPoolSlices][32][V];
  const int across = (groups + 31) / 32, lane = static_cast<int>(threadIdx.x), slice = static_cast<int>(threadIdx.y);
  for (int64_t b = blockIdx.x; b < images * across; b += gridDim.x) {
    const int64_t image = b / across;
    const int group = static_cast<int>(b % across) * 32 + lane;
    typename Op::Sum sum[V];
    for (int k = 0; k < V; ++k) sum[k] = op.none();
    if (group < groups)
      for (int i = slice; i < pixels; i += kPoolSlices) {
        const Lanes<T, V> lanes = load_lanes<V>(x + ((image * pixels + i) * groups + group) * V);
        for (int k = 0; k < V; ++k) op.add(sum[k], lanes.v[k]);
      }
    for (int k = 0; k < V; ++k) part[slice][lane][k] = sum[k];
    __syncthreads();
    if (slice == 0 && group < groups) {
      Lanes<R, V> out;
      for (int k = 0; k < V; ++k) {
        for (int s = 1; s < kPoolSlices; ++s) op.merge(sum[k], part[s][lane][k]);
        out.v[k] = op.result(sum[k], pixels, pixels);
      }
      store_lanes<V>(y + (image * groups + group) * V, out);
    }
    __syncthreads();
  }
}

/// Whole images of one channel: `warps` of a block's 8 (1 or 8) share one.
template <class Op, class T, class R> __global__ void pool_rows(Op op, const T* x, R* y, int64_t images, int64_t pixels, int warps) {
  __shared__ typename Op::Sum part[kPoolSlices];
  const int lane = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.y), per_block = kPoolSlices / warps;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * per_block; first < images; first += static_cast<int64_t>(gridDim.x) * per_block) {
    const int64_t image = warps == 1 ? first + warp : first;
    typename Op::Sum sum = op.none();
    if (image < images)
      for (int64_t i = (warps == 1 ? 0 : warp * 32) + lane; i < pixels; i += warps * 32) op.add(sum, x[image * pixels + i]);
    for (int by = 16; by > 0; by /= 2) op.merge(sum, __shfl_xor_sync(0xffffffffu, sum, by));
    if (warps > 1) {
      if (lane == 0) part[warp] = sum;
      __syncthreads();
      if (warp == 0 && lane == 0)
        for (int s = 1; s < kPoolSlices; ++s) op.merge(sum, part[s]);
      __syncthreads();
    }
    if (lane == 0 && image < images && (warps == 1 || warp == 0)) y[image] = op.result(sum, static_cast<int>(pixels), static_cast<int>(pixels));
  }
}

template <class Op, class T, class R, int V> void pool_lanes(Stream& stream, const Op& op, const T* x, R* y, const PoolAxes& p, int64_t images, int64_t channels) {
  const int64_t pixels = int64_t{p.in[0]} * p.in[1] * p.in[2], groups = channels / V;
  if (p.global() && pixels < (int64_t{1} << 30)) {
    if (channels == 1) {
      const int warps = pixels >= 2048 ? kPoolSlices : 1;
      INFOPT_LAUNCH(stream, (pool_rows<Op, T, R>), {grid_for(images, kPoolSlices / warps)}, {32, kPoolSlices}, 0, op, x, y, images, pixels, warps);
    } else {
      INFOPT_LAUNCH(stream, (pool_images<Op, T, R, V>), {grid_for(images * blocks_for(groups, 32), 1)}, {32, kPoolSlices}, 0, op, x, y, images, static_cast<int>(pixels), static_cast<int>(groups));
    }
    return;
  }
  const int64_t count = images * p.out[0] * p.out[1] * p.out[2] * groups;
  with_index(count, [&](auto index) {
    using I = decltype(index);
    INFOPT_LAUNCH(stream, (pool_windows<Op, T, R, V, I>), {grid_for(count, kPoolThreads)}, {kPoolThreads}, 0, op, x, y, p, PoolItems<I>(p, images, groups));
  });
}

/// x [images, pixels, channels] to y, of as many channels; neither is empty. Groups of `wide` channels where they fit.
template <int wide, class Op, class T, class R> void pool_pixels(Stream& stream, const Op& op, const T* x, R* y, const PoolAxes& p, int64_t images, int64_t channels) {
  const bool aligned = reinterpret_cast<uintptr_t>(x) % (sizeof(T) * wide) == 0 && reinterpret_cast<uintptr_t>(y) % (sizeof(R) * wide) == 0;
  if (channels % wide == 0 && aligned) pool_lanes<Op, T, R, wide>(stream, op, x, y, p, images, channels);
  else pool_lanes<Op, T, R, 1>(stream, op, x, y, p, images, channels);
}

}  // namespace infopt::cuda
