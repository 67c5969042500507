// A maximum sends dy to the first element of the window that has it; an average shares it out.
#include <algorithm>

#include "lib/autodiff/gradient.h"
#include "lib/base/simd.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/pool_window.h"

namespace infopt {
namespace {

/// A row of outputs: what of dy hasn't met its maximum yet goes to where x has y.
INFOPT_SIMD void give_to_equal(const float* x, float* dx, int64_t step, const float* y, float* left, int64_t outputs, int64_t channels) {
  for (int64_t o = 0; o < outputs; ++o, x += step, dx += step, y += channels, left += channels)
    for (int64_t c = 0; c < channels; ++c) {
      const bool here = x[c] == y[c];
      dx[c] += here ? left[c] : 0.0f;
      left[c] = here ? 0.0f : left[c];
    }
}

INFOPT_SIMD void give_to_all(float* dx, int64_t step, const float* dy, int64_t outputs, int64_t channels) {
  for (int64_t o = 0; o < outputs; ++o, dx += step, dy += channels)
    for (int64_t c = 0; c < channels; ++c) dx[c] += dy[c];
}

/// Images of pixels that lie together: a whole tensor with channels last, or each plane of a plain one.
struct Images {
  Pool3 p;
  int64_t count, channels;
  Images(const GradientContext& c, const WindowAttributes& attributes, Layout layout) {
    const Shape& x = c.shape(0);
    const Shape spatial(x.begin() + 2, x.end());
    p = widen(resolve_window(attributes, spatial, attributes.kernel), spatial);
    count = layout == Layout::Plain ? x[0] * x[1] : x[0];
    channels = layout == Layout::Plain ? 1 : x[1];
  }
  int64_t row() const { return p.out[2] * channels; }
  int64_t step() const { return p.stride[2] * channels; }
  /// Calls f(place of the image in x, of the row in y, a, b) for each row of outputs.
  template <class F> void each_row(F f) const {
    const int64_t rows = p.out[0] * p.out[1];
    for (int64_t r = 0; r < count * rows; ++r) f(r / rows * volume(p.in) * channels, r * row(), r % rows / p.out[1], r % p.out[1]);
  }
};

GradientFunction max_pool(const KernelSpec& spec) {
  return [attributes = WindowAttributes::of(spec.node)](GradientContext& c) {
    const Layout layout = c.layout();
    const Images images(c, attributes, layout);
    const Tensor x = c.in(0, layout), y = c.out(0, layout), dy = c.dy(0, layout);
    Tensor dx = Tensor::zeros(DType::F32, x.shape());
    std::vector<float> left(static_cast<size_t>(images.row()));
    images.each_row([&](int64_t image, int64_t row, int64_t a, int64_t b) {
      std::copy_n(dy.data<float>() + row, left.size(), left.begin());
      each_tap(images.p, a, b, [&](int64_t place, int64_t first, int64_t last) {
        const int64_t at = image + place * images.channels, from = first * images.channels;
        give_to_equal(x.data<float>() + at, dx.mutable_data<float>() + at, images.step(), y.data<float>() + row + from, left.data() + from, last - first, images.channels);
      });
    });
    c.give(0, dx, layout);
  };
}

GradientFunction average_pool(const KernelSpec& spec) {
  const bool pads_count = spec.node.i("count_include_pad", 0) != 0;
  return [attributes = WindowAttributes::of(spec.node), pads_count](GradientContext& c) {
    const Layout layout = c.layout();
    const Images images(c, attributes, layout);
    const Pool3& p = images.p;
    const Tensor dy = c.dy(0, layout);
    Tensor dx = Tensor::zeros(DType::F32, c.shape(0));
    std::vector<float> shares(static_cast<size_t>(images.row()));
    images.each_row([&](int64_t image, int64_t row, int64_t a, int64_t b) {
      const int64_t others = places(p, 0, a, pads_count) * places(p, 1, b, pads_count);
      for (int64_t o = 0, i = 0; o < p.out[2]; ++o) {
        const auto count = static_cast<float>(std::max<int64_t>(1, others * places(p, 2, o, pads_count)));
        for (int64_t k = 0; k < images.channels; ++k, ++i) shares[static_cast<size_t>(i)] = dy.data<float>()[row + i] / count;
      }
      each_tap(p, a, b, [&](int64_t place, int64_t first, int64_t last) {
        give_to_all(dx.mutable_data<float>() + image + place * images.channels, images.step(), shares.data() + first * images.channels, last - first, images.channels);
      });
    });
    c.give(0, dx, layout);
  };
}

GradientFunction global_average(const KernelSpec&) {
  return [](GradientContext& c) {
    const Shape& x = c.shape(0);
    const int64_t n = product(x, 2, x.size());
    const Tensor dy = c.dy();
    Tensor dx(DType::F32, x);
    for (int64_t o = 0; o < dy.size(); ++o) std::fill_n(dx.mutable_data<float>() + o * n, n, dy.data<float>()[o] / static_cast<float>(n));
    c.give(0, dx);
  };
}

GradientFunction global_max(const KernelSpec&) {
  return [](GradientContext& c) {
    const Shape& shape = c.shape(0);
    const int64_t n = product(shape, 2, shape.size());
    const Tensor x = c.in(0), y = c.out(0), dy = c.dy();
    Tensor dx = Tensor::zeros(DType::F32, shape);
    for (int64_t o = 0; o < dy.size(); ++o) {
      const float* from = x.data<float>() + o * n;
      const int64_t place = std::find(from, from + n, y.data<float>()[o]) - from;
      if (place < n) dx.mutable_data<float>()[o * n + place] = dy.data<float>()[o];
    }
    c.give(0, dx);
  };
}

}  // namespace

std::vector<GradientDef> gradient_pooling() {
  return {{"MaxPool", max_pool}, {"AveragePool", average_pool}, {"GlobalAveragePool", global_average}, {"GlobalMaxPool", global_max}};
}

}  // namespace infopt
