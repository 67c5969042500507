#include "lib/runtime/cpu/sparse_conv.h"

#include <algorithm>

#include "lib/base/share.h"

namespace infopt::cpu {
namespace {

constexpr int64_t kChunk = 64;  // pixels that are gathered at a time

/// [groups, a, b] as [groups, b, a].
Tensor swapped(const Tensor& given, Shape shape, int64_t a, int64_t b) {
  const Tensor t = given.aligned_for_now();
  Tensor out(DType::F32, std::move(shape));
  const float* from = t.data<float>();
  float* to = out.mutable_data<float>();
  for (int64_t g = 0; g < t.size() / (a * b); ++g, from += a * b, to += a * b)
    for (int64_t i = 0; i < a; ++i)
      for (int64_t j = 0; j < b; ++j) to[j * a + i] = from[i * b + j];
  return out;
}

int64_t taps_of(const Shape& shape) {
  int64_t taps = 1;
  for (size_t i = 2; i < shape.size(); ++i) taps *= shape[i];
  return taps;
}

/// A window along one axis of the input.
struct Line {
  int64_t in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, pad = 0;
  /// Where tap k of output o reads, or -1 in the pads.
  int64_t at(int64_t o, int64_t k) const {
    const int64_t i = o * stride - pad + k * dilation;
    return i >= 0 && i < in ? i : -1;
  }
};

Line line_of(const Window& w, const Shape& x, size_t axis) {
  return {x[axis + 2], w.out[axis], w.kernel[axis], w.strides[axis], w.dilations[axis], w.pads_begin[axis]};
}

/// What the windows of output pixels [from, from + n) see, one row each.
void gather(const float* x, int64_t channels, const Line& high, const Line& wide, int64_t from, int64_t n, float* to) {
  for (int64_t p = from; p < from + n; ++p) {
    const int64_t image = p / (high.out * wide.out), row = p / wide.out % high.out, column = p % wide.out;
    for (int64_t a = 0; a < high.kernel; ++a)
      for (int64_t b = 0; b < wide.kernel; ++b, to += channels) {
        const int64_t i = high.at(row, a), j = wide.at(column, b);
        if (i < 0 || j < 0) std::fill_n(to, channels, 0.0f);
        else std::copy_n(x + ((image * high.in + i) * wide.in + j) * channels, channels, to);
      }
  }
}

}  // namespace

Tensor by_taps(const Tensor& weights) {
  const int64_t taps = taps_of(weights.shape());
  if (taps == 1) return weights.reshaped({weights.dim(0), weights.dim(1)});
  return swapped(weights, {weights.dim(0), weights.dim(1) * taps}, weights.dim(1), taps);
}

Tensor from_taps(const Tensor& weights, const Shape& shape) { return taps_of(shape) == 1 ? weights.reshaped(shape) : swapped(weights, shape, taps_of(shape), shape[1]); }

void sparse_convolve(const SparseProduct& product, const Window& window, const Tensor& x, const float* bias, const PostActivation& post, bool adds, Tensor& y) {
  const bool plane = x.rank() == 4;
  const Line high = plane ? line_of(window, x.shape(), 0) : Line{}, wide = line_of(window, x.shape(), plane ? 1 : 0);
  const int64_t channels = x.dim(1), pixels = x.dim(0) * high.out * wide.out, columns = product.columns();
  const SparseForm form = product.form_for(pixels).value();
  const float* from = x.data<float>();
  float* to = y.mutable_data<float>();
  share_items((pixels + kChunk - 1) / kChunk, [&](int64_t chunk) {
    const int64_t first = chunk * kChunk, n = std::min(kChunk, pixels - first);
    Tensor rows(DType::F32, {n, product.depth()});
    gather(from, channels, high, wide, first, n, rows.mutable_data<float>());
    product.run_as(form, rows.data<float>(), n, bias, post, adds, to + first * columns);
  });
}

}  // namespace infopt::cpu
