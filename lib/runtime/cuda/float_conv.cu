#include "lib/runtime/cuda/float_conv.h"

#include <algorithm>
#include <cstring>

#include "lib/base/strided.h"
#include "lib/runtime/cuda/activation.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/pack.h"
#include "lib/runtime/cuda/product.h"
#include "lib/runtime/cuda/sparse_weights.h"

namespace infopt::cuda {
namespace {

constexpr int64_t kMostScratch = int64_t{256} << 20;  // bytes
using Index = uint32_t;
using Divide = Divider<Index>;

/// A window over three spatial axes, outermost first; those that a tensor lacks are 1 long.
struct Taps {
  int in[3], kernel[3], stride[3], dilation[3], pad[3];
  Divide out[3], kernel_by[3];
  int64_t channels;  ///< of a pixel
};

Taps taps_of(const Window& w, const Tensor& x) {
  Taps t{{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {Divide(1), Divide(1), Divide(1)}, {Divide(1), Divide(1), Divide(1)}, x.dim(1)};
  const size_t n = w.out.size();
  for (size_t i = 0; i < n; ++i) {
    const size_t d = 3 - n + i;
    t.in[d] = static_cast<int>(x.dim(static_cast<int64_t>(i) + 2));
    t.kernel[d] = static_cast<int>(w.kernel[i]);
    t.stride[d] = static_cast<int>(w.strides[i]);
    t.dilation[d] = static_cast<int>(w.dilations[i]);
    t.pad[d] = static_cast<int>(w.pads_begin[i]);
    t.out[d] = Divide(std::max<int64_t>(w.out[i], 1));
    t.kernel_by[d] = Divide(w.kernel[i]);
  }
  return t;
}

/// Where an output pixel's window begins, and in which image.
struct Corner {
  Index image;
  int at[3];
};
INFOPT_DEVICE Corner corner_of(Index pixel, const Taps& t) {
  Corner c;
  for (int d = 2; d >= 0; --d) {
    const Index q = t.out[d].divide(pixel);
    c.at[d] = static_cast<int>(pixel - q * t.out[d].d) * t.stride[d] - t.pad[d];
    pixel = q;
  }
  c.image = pixel;
  return c;
}

/// The pixel that a window's position sees, counted through the images; −1 outside of them.
INFOPT_DEVICE int64_t seen_pixel(const Corner& c, Index position, const Taps& t) {
  int at[3];
  for (int d = 2; d >= 0; --d) {
    const Index q = t.kernel_by[d].divide(position);
    at[d] = c.at[d] + static_cast<int>(position - q * t.kernel_by[d].d) * t.dilation[d];
    position = q;
  }
  if (at[0] < 0 || at[0] >= t.in[0] || at[1] < 0 || at[1] >= t.in[1] || at[2] < 0 || at[2] >= t.in[2]) return -1;
  return ((static_cast<int64_t>(c.image) * t.in[0] + at[0]) * t.in[1] + at[1]) * t.in[2] + at[2];
}

struct Columns {
  Divide row_packs, group_packs, group_channels;
  Index first;     ///< output pixel of row 0
  Index elements;  ///< of a group's row, without what fills it up
};

/// Rows of the matrix whose product with the weights is the convolution: for each output pixel and group what its window sees, position by
/// position, N elements a thread. Whole: N divides the group's channels, so that a pack is in one pixel.
template <class T, int N, bool Whole> __global__ void lay_out_columns(const T* x, Pack<T, N>* columns, Index packs, Columns of, Taps taps) {
  const Index step = gridDim.x * blockDim.x;
  for (Index i = blockIdx.x * blockDim.x + threadIdx.x; i < packs; i += step) {
    const Index row = of.row_packs.divide(i), in_row = i - row * of.row_packs.d, group = of.group_packs.divide(in_row);
    const Corner corner = corner_of(of.first + row, taps);
    Index k = (in_row - group * of.group_packs.d) * N;
    Pack<T, N> pack = {};
    if constexpr (Whole) {
      const Index position = of.group_channels.divide(k);
      const int64_t pixel = seen_pixel(corner, position, taps);
      if (pixel >= 0) pack = *reinterpret_cast<const Pack<T, N>*>(x + pixel * taps.channels + group * of.group_channels.d + (k - position * of.group_channels.d));
    } else {
      Index position = of.group_channels.divide(k), channel = k - position * of.group_channels.d;
      int64_t pixel = k < of.elements ? seen_pixel(corner, position, taps) : -1;
      for (int q = 0; q < N && k < of.elements; ++q, ++k) {
        if (pixel >= 0) pack.v[q] = x[pixel * taps.channels + group * of.group_channels.d + channel];
        if (++channel < of.group_channels.d) continue;
        channel = 0;
        ++position;
        if (k + 1 < of.elements) pixel = seen_pixel(corner, position, taps);
      }
    }
    columns[i] = pack;
  }
}

struct Depthwise {
  Divide packs;  ///< of an output pixel
  Index positions, multiplier;
  const void *bias, *residual;
  PostActivation post;
};

/// One output pixel's N columns a thread. N > 1: as many outputs as channels.
template <class T, int N> __global__ void depthwise(const T* x, const Pack<T, N>* weights, Pack<T, N>* y, Index first, Index count, Depthwise of, Taps taps) {
  const Index step = gridDim.x * blockDim.x;
  for (Index i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
    const Index row = of.packs.divide(i), column = i - row * of.packs.d;
    const Corner corner = corner_of(first + row, taps);
    const int64_t channel = N > 1 ? column * N : column / of.multiplier;
    float sums[N] = {};
    for (Index p = 0; p < of.positions; ++p) {
      const int64_t pixel = seen_pixel(corner, p, taps);
      if (pixel < 0) continue;
      const Pack<T, N> values = *reinterpret_cast<const Pack<T, N>*>(x + pixel * taps.channels + channel), w = weights[p * of.packs.d + column];
      for (int q = 0; q < N; ++q) sums[q] = fmaf(load_float(values.v[q]), load_float(w.v[q]), sums[q]);
    }
    Pack<T, N> out, bias = {}, residual = {};
    if (of.bias) bias = static_cast<const Pack<T, N>*>(of.bias)[column];
    if (of.residual) residual = static_cast<const Pack<T, N>*>(of.residual)[i];
    for (int q = 0; q < N; ++q) {
      float v = sums[q];
      if (of.bias) v += load_float(bias.v[q]);
      if (of.residual) v += load_float(residual.v[q]);
      store_float(out.v[q], activate(of.post.kind, of.post.low, of.post.high, v));
    }
    y[i] = out;
  }
}

/// (m, channels, positions) to (m, positions·channels and zeros up to `columns`), or for depthwise ones to (positions, m).
template <class T> __global__ void pack_weights(const T* w, T* to, int64_t count, int64_t m, int64_t channels, int64_t positions, int64_t columns, bool depthwise) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    if (depthwise) {
      to[i] = w[i % m * positions + i / m];
      continue;
    }
    const int64_t k = i % columns;
    to[i] = k < positions * channels ? w[(i / columns * channels + k % channels) * positions + k / channels] : T{};
  }
}

/// (channels, m, positions) to (channels, positions, m).
template <class T> __global__ void swap_inner(const T* w, T* to, int64_t count, int64_t m, int64_t positions) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) to[i] = w[i / (m * positions) * m * positions + i % m * positions + i / m % positions];
}

/// The sums of a transposed convolution: for each output element those of the products that meet there, in the order of the positions.
/// columns: (input pixel, group, position, m of the group).
template <class T> __global__ void gather_columns(const float* columns, T* y, int64_t count, int64_t m, int64_t group_m, int64_t positions, const T* bias, PostActivation post, Taps taps) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const int64_t column = i % m, group = column / group_m;
    Index rest = static_cast<Index>(i / m);
    int at[3];
    for (int d = 2; d >= 0; --d) {
      const Index q = taps.out[d].divide(rest);
      at[d] = static_cast<int>(rest - q * taps.out[d].d) + taps.pad[d];
      rest = q;
    }
    float sum = 0;
    int64_t position = 0;
    for (int a = 0; a < taps.kernel[0]; ++a)
      for (int b = 0; b < taps.kernel[1]; ++b)
        for (int c = 0; c < taps.kernel[2]; ++c, ++position) {
          const int from[3] = {at[0] - a * taps.dilation[0], at[1] - b * taps.dilation[1], at[2] - c * taps.dilation[2]};
          bool inside = true;
          int64_t pixel = rest;
          for (int d = 0; d < 3; ++d) {
            const int place = from[d] / taps.stride[d];
            inside = inside && from[d] >= 0 && place * taps.stride[d] == from[d] && place < taps.in[d];
            pixel = pixel * taps.in[d] + place;
          }
          if (inside) sum += columns[((pixel * (m / group_m) + group) * positions + position) * group_m + column % group_m];
        }
    if (bias) sum += load_float(bias[column]);
    store_float(y[i], activate(post.kind, post.low, post.high, sum));
  }
}

template <class F> void with_float(DType type, F&& f) {
  switch (type) {
    case DType::F32: return f(float{});
    case DType::F16: return f(half{});
    case DType::BF16: return f(bfloat16{});
    default: throw Error(ErrorKind::Unsupported, "a convolution of " + std::string(name_of(type)));
  }
}

int64_t product_of(const std::vector<int64_t>& v) { return element_count(v); }

ConvWeights described(const Tensor& weights, int64_t groups) {
  with_float(weights.dtype(), [](auto) {});
  ConvWeights w{.shape = weights.shape(), .groups = groups, .depthwise = weights.dim(1) == 1 && groups > 1};
  const int64_t k = w.shape[0] == 0 ? 0 : weights.size() / w.shape[0], pack = 128 / static_cast<int64_t>(bits_of(weights.dtype()));
  const bool single = k == weights.dim(1);  // may do without columns
  w.columns = single ? k : (k + pack - 1) / pack * pack;
  return w;
}

/// Calls f(first image, images, first pixel, pixels) for slices of at most so many pixels: whole images, or parts of one.
template <class F> void for_slices(int64_t images, int64_t pixels, int64_t most, F&& f) {
  if (most >= pixels) {
    const int64_t together = std::min(most / pixels, std::max<int64_t>(1, (int64_t{1} << 31) / pixels - 1));
    for (int64_t i = 0; i < images; i += together) f(i, int64_t{0}, std::min(together, images - i) * pixels);
    return;
  }
  for (int64_t i = 0; i < images; ++i)
    for (int64_t p = 0; p < pixels; p += most) f(i, p, std::min(most, pixels - p));
}

const std::byte* moved(const void* p, int64_t bytes) { return p ? static_cast<const std::byte*>(p) + bytes : nullptr; }

class Convolving {
 public:
  Convolving(CudaRun& run, const Tensor& x, const ConvWeights& weights, const void* packed, const Window& w, Tensor& y, const Finish& finish, const SparseWeights* sparse)
      : run_(run), x_(x), weights_(weights), packed_(packed), w_(w), y_(y), finish_(finish), sparse_(sparse), taps_(taps_of(w, x)), size_(static_cast<int64_t>(bits_of(x.dtype()) / 8)), m_(weights.shape[0]),
        pixels_(product_of(w.out)), image_(x.dim(0) == 0 ? 0 : x.size() / x.dim(0)) {}

  void depthwise_of(auto type) {
    using T = decltype(type);
    constexpr int kPack = 16 / sizeof(T);
    const int64_t multiplier = m_ / weights_.groups;
    const bool whole = multiplier == 1 && m_ % kPack == 0 && aligned_16(packed_) && aligned_16(x_.raw()) && aligned_16(y_.raw()) && aligned_16(finish_.bias) && aligned_16(finish_.residual);
    const int64_t packs = whole ? m_ / kPack : m_;
    for_slices(x_.dim(0), pixels_, (int64_t{1} << 30) / packs, [&](int64_t image, int64_t first, int64_t count) {
      const int64_t at = (image * pixels_ + first) * m_ * size_;
      const Depthwise of{Divide(packs), static_cast<Index>(product_of(w_.kernel)), static_cast<Index>(multiplier), finish_.bias, moved(finish_.residual, at), finish_.post};
      const T* x = reinterpret_cast<const T*>(x_.raw()) + image * image_;
      std::byte* y = y_.mutable_raw() + at;
      const auto items = static_cast<Index>(count * packs);
      if (whole)
        INFOPT_LAUNCH(run_.stream(), (depthwise<T, kPack>), grid_for(items, 256), 256, 0, x, static_cast<const Pack<T, kPack>*>(packed_), reinterpret_cast<Pack<T, kPack>*>(y), static_cast<Index>(first), items, of, taps_);
      else
        INFOPT_LAUNCH(run_.stream(), (depthwise<T, 1>), grid_for(items, 256), 256, 0, x, static_cast<const Pack<T, 1>*>(packed_), reinterpret_cast<Pack<T, 1>*>(y), static_cast<Index>(first), items, of, taps_);
    });
  }

  void as_product(auto type) {
    using T = decltype(type);
    const int64_t groups = weights_.groups, channels = weights_.shape[1];
    const bool direct = is_pointwise() && weights_.columns == channels;
    const int64_t row = direct ? channels * groups : weights_.columns * groups, most = direct ? int64_t{1} << 30 : std::max<int64_t>(1, kMostScratch / (row * size_));
    MatrixProduct p{.type = x_.dtype(), .out = x_.dtype(), .transpose_b = true, .n = m_ / groups, .k = weights_.columns, .lda = row, .ldb = weights_.columns, .ldc = m_, .batch = groups,
                    .stride_a = weights_.columns, .stride_b = m_ / groups * weights_.columns, .stride_c = m_ / groups};
    const Ending end = end_in_library(p, finish_, groups == 1);
    for_slices(x_.dim(0), pixels_, most, [&](int64_t image, int64_t first, int64_t count) {
      const int64_t at = (image * pixels_ + first) * m_ * size_;
      const T* x = reinterpret_cast<const T*>(x_.raw()) + image * image_;
      Tensor columns;
      if (!direct) columns = lay_out<T>(x, first, count, row);
      p.m = count;
      const void* rows = direct ? static_cast<const void*>(x + first * row) : columns.raw();
      std::byte* y = y_.mutable_raw() + at;
      const auto dense = [&] {
        run_.libraries().multiply(run_.stream(), p, rows, packed_, y, end.bias, moved(end.added, at));
        Finish left = end.left;
        left.residual = moved(left.residual, at);
        finish_rows(run_.stream(), y_.dtype(), y, count, m_, left);
      };
      if (!sparse_) return dense();
      Finish finish = finish_;
      finish.residual = moved(finish.residual, at);
      sparse_->multiply(run_, {.type = p.type, .m = p.m, .n = p.n, .k = p.k, .lda = p.lda}, rows, y, finish, dense);
    });
  }

 private:
  bool is_pointwise() const {
    for (size_t i = 0; i < w_.out.size(); ++i)
      if (w_.kernel[i] != 1 || w_.strides[i] != 1 || w_.pads_begin[i] != 0 || w_.out[i] != x_.dim(static_cast<int64_t>(i) + 2)) return false;
    return true;
  }

  template <class T> Tensor lay_out(const T* x, int64_t first, int64_t count, int64_t row) {
    constexpr int kPack = 16 / sizeof(T);
    const int64_t channels = weights_.shape[1];
    Tensor columns = run_.make(x_.dtype(), {count, row});
    const auto launch = [&](auto kernel, int pack) {
      const Columns of{Divide(row / pack), Divide(weights_.columns / pack), Divide(channels), static_cast<Index>(first), static_cast<Index>(channels * product_of(w_.kernel))};
      const auto packs = static_cast<Index>(count * row / pack);
      kernel(of, packs);
    };
    if (weights_.columns % kPack != 0)
      launch([&](const Columns& of, Index packs) { INFOPT_LAUNCH(run_.stream(), (lay_out_columns<T, 1, true>), grid_for(packs, 256), 256, 0, x, reinterpret_cast<Pack<T, 1>*>(columns.mutable_raw()), packs, of, taps_); }, 1);
    else if (channels % kPack == 0 && aligned_16(x_.raw()))
      launch([&](const Columns& of, Index packs) { INFOPT_LAUNCH(run_.stream(), (lay_out_columns<T, kPack, true>), grid_for(packs, 256), 256, 0, x, reinterpret_cast<Pack<T, kPack>*>(columns.mutable_raw()), packs, of, taps_); }, kPack);
    else
      launch([&](const Columns& of, Index packs) { INFOPT_LAUNCH(run_.stream(), (lay_out_columns<T, kPack, false>), grid_for(packs, 256), 256, 0, x, reinterpret_cast<Pack<T, kPack>*>(columns.mutable_raw()), packs, of, taps_); }, kPack);
    return columns;
  }

  CudaRun& run_;
  const Tensor& x_;
  const ConvWeights& weights_;
  const void* packed_;
  const Window& w_;
  Tensor& y_;
  const Finish& finish_;
  const SparseWeights* sparse_;
  Taps taps_;
  int64_t size_, m_, pixels_, image_;
};

}  // namespace

ConvWeights pack_conv_weights(const Tensor& weights, int64_t groups) {
  ConvWeights w = described(weights, groups);
  const int64_t m = w.shape[0], channels = w.shape[1], positions = product_of({w.shape.begin() + 2, w.shape.end()});
  if (w.depthwise) {
    w.packed = gather_strided(weights, {positions, m}, 0, {1, positions});
    return w;
  }
  const Tensor rows = positions == 1 ? weights : gather_strided(weights, {m, positions, channels}, 0, {positions * channels, 1, positions});
  if (w.columns == positions * channels) {
    w.packed = rows.reshaped({m, w.columns});
    return w;
  }
  w.packed = Tensor::zeros(weights.dtype(), {m, w.columns});
  const size_t size = element_bytes(weights.dtype()), row = size * static_cast<size_t>(positions * channels);
  for (int64_t i = 0; i < m; ++i) std::memcpy(w.packed.mutable_raw() + size * static_cast<size_t>(i * w.columns), rows.raw() + row * static_cast<size_t>(i), row);
  return w;
}

ConvWeights pack_conv_weights(CudaRun& run, const Tensor& weights, int64_t groups) {
  ConvWeights w = described(weights, groups);
  const int64_t m = w.shape[0], channels = w.shape[1], positions = product_of({w.shape.begin() + 2, w.shape.end()});
  w.packed = run.make(weights.dtype(), w.depthwise ? Shape{positions, m} : Shape{m, w.columns});
  with_float(weights.dtype(), [&](auto type) {
    using T = decltype(type);
    INFOPT_LAUNCH(run.stream(), pack_weights<T>, grid_for(w.packed.size(), 256), 256, 0, weights.data<T>(), w.packed.mutable_data<T>(), w.packed.size(), m, channels, positions, w.columns, w.depthwise);
  });
  return w;
}

void convolve(CudaRun& run, const Tensor& x, const ConvWeights& weights, const void* packed, const Window& w, Tensor& y, const Finish& finish, const SparseWeights* sparse) {
  if (y.size() == 0) return;
  if (weights.columns == 0 && !weights.depthwise) {
    run.stream().fill(y.mutable_raw(), 0, y.bytes());
    return finish_rows(run.stream(), y.dtype(), y.mutable_raw(), y.size() / y.dim(1), y.dim(1), finish);
  }
  Convolving convolving(run, x, weights, packed, w, y, finish, sparse);
  with_float(x.dtype(), [&](auto type) {
    if (weights.depthwise) convolving.depthwise_of(type);
    else convolving.as_product(type);
  });
}

Tensor pack_transposed_weights(const Tensor& weights) {
  const int64_t m = weights.dim(1), positions = product_of({weights.shape().begin() + 2, weights.shape().end()});
  return positions == 1 ? weights : gather_strided(weights, {weights.dim(0), positions, m}, 0, {m * positions, 1, positions});
}

Tensor pack_transposed_weights(CudaRun& run, const Tensor& weights) {
  const int64_t m = weights.dim(1), positions = product_of({weights.shape().begin() + 2, weights.shape().end()});
  if (positions == 1) return weights;
  Tensor packed = run.make(weights.dtype(), {weights.dim(0), positions, m});
  with_float(weights.dtype(), [&](auto type) {
    using T = decltype(type);
    INFOPT_LAUNCH(run.stream(), swap_inner<T>, grid_for(packed.size(), 256), 256, 0, weights.data<T>(), packed.mutable_data<T>(), packed.size(), m, positions);
  });
  return packed;
}

void convolve_transposed(CudaRun& run, const Tensor& x, const Shape& weights, const void* packed, int64_t groups, const Window& w, Tensor& y, const Finish& finish) {
  if (y.size() == 0) return;
  const int64_t images = x.dim(0), pixels = x.size() / std::max<int64_t>(1, images * x.dim(1)), outputs = product_of(w.out), channels = weights[0] / groups, group_m = weights[1], m = group_m * groups;
  const int64_t positions = product_of(w.kernel), row = groups * positions * group_m;
  if (channels == 0 || pixels == 0) {
    run.stream().fill(y.mutable_raw(), 0, y.bytes());
    return finish_rows(run.stream(), y.dtype(), y.mutable_raw(), images * outputs, m, finish);
  }
  const int64_t together = std::clamp<int64_t>(kMostScratch / (pixels * row * 4), 1, std::max<int64_t>(1, (int64_t{1} << 30) / std::max(outputs, pixels)));
  const Taps taps = taps_of(w, x);
  with_float(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for (int64_t i = 0; i < images; i += together) {
      const int64_t count = std::min(together, images - i);
      Tensor columns = run.make(DType::F32, {count * pixels, row});
      const MatrixProduct p{.type = x.dtype(), .out = DType::F32, .m = count * pixels, .n = positions * group_m, .k = channels, .lda = channels * groups, .ldb = positions * group_m, .ldc = row,
                            .batch = groups, .stride_a = channels, .stride_b = channels * positions * group_m, .stride_c = positions * group_m};
      run.libraries().multiply(run.stream(), p, x.data<T>() + i * pixels * x.dim(1), packed, columns.mutable_raw());
      const int64_t elements = count * outputs * m;
      INFOPT_LAUNCH(run.stream(), gather_columns<T>, grid_for(elements, 256), 256, 0, columns.data<float>(), y.mutable_data<T>() + i * outputs * m, elements, m, group_m, positions,
                    static_cast<const T*>(finish.bias), finish.post, taps);
    }
  });
}

}  // namespace infopt::cuda
