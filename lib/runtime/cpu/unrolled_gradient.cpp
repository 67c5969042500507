#include "lib/runtime/cpu/unrolled_gradient.h"

#include <algorithm>
#include <vector>

#include "lib/runtime/cpu/dnnl_common.h"

namespace infopt::cpu {
namespace {

constexpr int64_t kTogether = int64_t{1} << 18;  // floats of windows laid out at once

/// Sizes of one convolution from x to y, one group's channels and windows.
struct Windows {
  const ConvGeometry& geometry;
  Shape spatial, out, kernel;
  int64_t images, area, places, taps, channels, makes, groups, in, rows;  ///< in, rows: of one group

  Windows(const ConvGeometry& g, const Shape& x, const Shape& weights, const Shape& y) : geometry(g), spatial(x.begin() + 2, x.end()), out(y.begin() + 2, y.end()), kernel(weights.begin() + 2, weights.end()) {
    images = x[0], channels = x[1], makes = y[1], groups = g.groups, in = channels / groups, rows = makes / groups;
    area = element_count(spatial), places = element_count(out), taps = element_count(kernel);
  }
  int64_t width() const { return taps * in; }
  int64_t at_once() const { return std::clamp<int64_t>(kTogether / std::max<int64_t>(1, width()), 1, std::max<int64_t>(1, places)); }

  /// Calls f(row of the window, tap, place in the image) for windows [from, from + count) of an image where they lie inside.
  template <class F> void each(int64_t from, int64_t count, F f) const {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t t = 0; t < taps; ++t) {
        int64_t at = 0, place = from + i, tap = t, stride = 1;
        for (size_t d = spatial.size(); d-- > 0 && at >= 0;) {
          const int64_t p = place % out[d] * geometry.strides[d] + tap % kernel[d] * geometry.dilations[d] - geometry.pads_begin[d];
          at = p < 0 || p >= spatial[d] ? -1 : at + p * stride;
          place /= out[d], tap /= kernel[d], stride *= spatial[d];
        }
        if (at >= 0) f(i, t, at);
      }
  }
};

void multiply(char ta, char tb, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  if (m == 0 || n == 0 || k == 0) return;
  if (dnnl_sgemm(ta, tb, m, n, k, 1.0f, a, lda, b, ldb, beta, c, ldc) != dnnl_success) throw Error(ErrorKind::Defect, "oneDNN refuses a product");
}

/// (M, C/groups, k…) with channels last in each kernel, or back.
void turn(const Windows& w, const float* from, float* to, bool last) {
  for (int64_t m = 0; m < w.makes; ++m)
    for (int64_t c = 0; c < w.in; ++c)
      for (int64_t t = 0; t < w.taps; ++t) {
        const int64_t plain = (m * w.in + c) * w.taps + t, turned = (m * w.taps + t) * w.in + c;
        if (last) to[turned] = from[plain];
        else to[plain] = from[turned];
      }
}

}  // namespace

void unrolled_by_input(const ConvGeometry& geometry, const Tensor& dy, const Tensor& weights, Tensor& dx) {
  const Windows w(geometry, dx.shape(), weights.shape(), dy.shape());
  stream();
  std::vector<float> kernels(static_cast<size_t>(weights.size())), seen(static_cast<size_t>(w.at_once() * w.width()));
  turn(w, weights.data<float>(), kernels.data(), true);
  float* to = dx.mutable_data<float>();
  std::fill_n(to, dx.size(), 0.0f);
  for (int64_t n = 0; n < w.images; ++n)
    for (int64_t g = 0; g < w.groups; ++g)
      for (int64_t from = 0; from < w.places; from += w.at_once()) {
        const int64_t count = std::min(w.at_once(), w.places - from);
        const float* d = dy.data<float>() + (n * w.places + from) * w.makes + g * w.rows;
        multiply('N', 'N', count, w.width(), w.rows, d, w.makes, kernels.data() + g * w.rows * w.width(), w.width(), 0, seen.data(), w.width());
        w.each(from, count, [&](int64_t row, int64_t tap, int64_t place) {
          const float* s = seen.data() + row * w.width() + tap * w.in;
          float* p = to + (n * w.area + place) * w.channels + g * w.in;
          for (int64_t c = 0; c < w.in; ++c) p[c] += s[c];
        });
      }
}

void unrolled_by_weights(const ConvGeometry& geometry, const Tensor& x, const Tensor& dy, Tensor& dw) {
  const Windows w(geometry, x.shape(), dw.shape(), dy.shape());
  stream();
  std::vector<float> kernels(static_cast<size_t>(dw.size()), 0.0f), seen(static_cast<size_t>(w.at_once() * w.width()));
  for (int64_t n = 0; n < w.images; ++n)
    for (int64_t g = 0; g < w.groups; ++g)
      for (int64_t from = 0; from < w.places; from += w.at_once()) {
        const int64_t count = std::min(w.at_once(), w.places - from);
        std::fill_n(seen.begin(), count * w.width(), 0.0f);
        w.each(from, count, [&](int64_t row, int64_t tap, int64_t place) { std::copy_n(x.data<float>() + (n * w.area + place) * w.channels + g * w.in, w.in, seen.data() + row * w.width() + tap * w.in); });
        const float* d = dy.data<float>() + (n * w.places + from) * w.makes + g * w.rows;
        multiply('T', 'N', w.rows, w.width(), count, d, w.makes, seen.data(), w.width(), 1, kernels.data() + g * w.rows * w.width(), w.width());
      }
  turn(w, kernels.data(), dw.mutable_data<float>(), false);
}

}  // namespace infopt::cpu
