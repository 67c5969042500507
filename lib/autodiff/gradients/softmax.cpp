// Softmax along an axis: dx = y·(dy − Σ dy·y). LogSoftmax: dx = dy − eʸ·Σ dy. Before opset 13 the axis begins a flattened row.
#include <cmath>

#include "lib/autodiff/gradient.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

/// Rows of n elements, `step` apart.
template <bool logarithmic> void row(const float* y, const float* dy, float* dx, int64_t n, int64_t step) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(logarithmic ? dy[i * step] : dy[i * step] * y[i * step]);
  const auto s = static_cast<float>(sum);
  for (int64_t i = 0; i < n; ++i) dx[i * step] = logarithmic ? dy[i * step] - std::exp(y[i * step]) * s : y[i * step] * (dy[i * step] - s);
}

template <bool logarithmic> GradientFunction softmax(const KernelSpec& spec) {
  const bool flattens = spec.opset < 13;
  const int64_t given = spec.node.i("axis", flattens ? 1 : -1);
  return [flattens, given](GradientContext& c) {
    const Tensor y = c.out(0), dy = c.dy();
    const auto axis = static_cast<size_t>(normal_axis(given, y.rank()));
    const int64_t n = flattens ? product(y.shape(), axis, y.shape().size()) : y.shape()[axis];
    const int64_t inner = flattens ? 1 : product(y.shape(), axis + 1, y.shape().size());
    Tensor dx(DType::F32, y.shape());
    if (y.size() == 0) return c.give(0, dx);
    for (int64_t o = 0; o < y.size() / (n * inner); ++o)
      for (int64_t i = 0; i < inner; ++i) {
        const int64_t at = o * n * inner + i;
        row<logarithmic>(y.data<float>() + at, dy.data<float>() + at, dx.mutable_data<float>() + at, n, inner);
      }
    c.give(0, dx);
  };
}

}  // namespace

std::vector<GradientDef> gradient_softmax() { return {{"Softmax", softmax<false>}, {"LogSoftmax", softmax<true>}}; }

}  // namespace infopt
