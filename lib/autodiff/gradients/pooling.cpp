// A maximum sends dy to the first element of the window that has it; an average shares it out.
#include <algorithm>

#include "lib/autodiff/gradient.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/window.h"

namespace infopt {
namespace {

/// Calls f(input's place, whether inside) for each element of the window of one output place; places within one channel.
template <class F> void each_in_window(const Window& w, const Shape& spatial, const Shape& at, F f) {
  const size_t n = spatial.size();
  Shape k(n, 0);
  for (;;) {
    int64_t place = 0;
    bool inside = true, counted = true;
    for (size_t d = 0; d < n; ++d) {
      const int64_t i = at[d] * w.strides[d] - w.pads_begin[d] + k[d] * w.dilations[d];
      inside = inside && i >= 0 && i < spatial[d];
      counted = counted && i < spatial[d] + w.pads_end[d];  // what only ceil_mode reaches doesn't count
      place = place * spatial[d] + i;
    }
    f(place, inside, counted);
    size_t d = n;
    while (d > 0 && ++k[d - 1] == w.kernel[d - 1]) k[--d] = 0;
    if (d == 0) return;
  }
}

/// Calls f(place of the channel in x, in y, window, position) for each output place.
template <class F> void each_output(const GradientContext& c, const Window& w, F f) {
  const Shape& x = c.shape(0);
  const Shape spatial(x.begin() + 2, x.end());
  const int64_t in = product(spatial, 0, spatial.size()), out = product(w.out, 0, w.out.size());
  for (int64_t o = 0; o < x[0] * x[1]; ++o) {
    Shape at(spatial.size(), 0);
    for (int64_t y = 0; y < out; ++y) {
      f(o * in, o * out + y, spatial, at);
      for (size_t d = at.size(); d > 0 && ++at[d - 1] == w.out[d - 1];) at[--d] = 0;
    }
  }
}

Window window_of(const GradientContext& c, const WindowAttributes& attributes) {
  const Shape spatial(c.shape(0).begin() + 2, c.shape(0).end());
  return resolve_window(attributes, spatial, attributes.kernel);
}

GradientFunction max_pool(const KernelSpec& spec) {
  return [attributes = WindowAttributes::of(spec.node)](GradientContext& c) {
    const Window w = window_of(c, attributes);
    const Tensor x = c.in(0), y = c.out(0), dy = c.dy();
    Tensor dx = Tensor::zeros(DType::F32, x.shape());
    each_output(c, w, [&](int64_t channel, int64_t out, const Shape& spatial, const Shape& at) {
      bool found = false;
      each_in_window(w, spatial, at, [&](int64_t place, bool inside, bool) {
        if (found || !inside || x.data<float>()[channel + place] != y.data<float>()[out]) return;
        dx.mutable_data<float>()[channel + place] += dy.data<float>()[out];
        found = true;
      });
    });
    c.give(0, dx);
  };
}

GradientFunction average_pool(const KernelSpec& spec) {
  const bool pads_count = spec.node.i("count_include_pad", 0) != 0;
  return [attributes = WindowAttributes::of(spec.node), pads_count](GradientContext& c) {
    const Window w = window_of(c, attributes);
    const Tensor dy = c.dy();
    Tensor dx = Tensor::zeros(DType::F32, c.shape(0));
    each_output(c, w, [&](int64_t channel, int64_t out, const Shape& spatial, const Shape& at) {
      int64_t count = 0;
      each_in_window(w, spatial, at, [&](int64_t, bool inside, bool counted) { count += inside || (pads_count && counted); });
      const float share = dy.data<float>()[out] / static_cast<float>(std::max<int64_t>(1, count));
      each_in_window(w, spatial, at, [&](int64_t place, bool inside, bool) {
        if (inside) dx.mutable_data<float>()[channel + place] += share;
      });
    });
    c.give(0, dx);
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
