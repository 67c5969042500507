// Resize and Upsample: each output's gradient goes back to the places that it was made of, by their weights, axis after axis.
#include <algorithm>

#include "lib/autodiff/gradient.h"
#include "lib/base/simd.h"
#include "lib/ops/kernel_util.h"
#include "lib/ops/resize.h"

namespace infopt {
namespace {

INFOPT_SIMD void add_scaled(const float* from, float by, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += by * from[i];
}

/// dy with `axis` brought back from a.out to a.in places.
Tensor bring_back(const Tensor& dy, size_t axis, const ResizeSpec& s, const AxisPlan& a) {
  Shape shape = dy.shape();
  const int64_t outer = product(shape, 0, axis), inner = product(shape, axis + 1, shape.size()), width = tap_width(s, a);
  shape[axis] = a.in;
  Tensor dx = Tensor::zeros(DType::F32, shape);
  Tensor places(DType::I32, {width}), weights(DType::F32, {width});
  auto* at = places.mutable_data<int32_t>();
  auto* by = weights.mutable_data<float>();
  std::fill_n(by, width, 1.0f);
  for (int64_t i = 0; i < a.out; ++i) {
    if (lies_outside(s, a, i)) continue;
    put_taps(s, a, i, width, 1, at, by);
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t t = 0; t < width; ++t)
        if (by[t] != 0) add_scaled(dy.data<float>() + (o * a.out + i) * inner, by[t], dx.mutable_data<float>() + (o * a.in + at[t]) * inner, inner);
  }
  return dx;
}

void give_back(GradientContext& c, const ResizeSpec& s, const std::vector<float>& scales, const std::vector<int64_t>& sizes, const std::vector<float>& roi) {
  if (!c.wants(0)) return;
  Tensor d = c.dy();
  const std::vector<AxisPlan> axes = plan_resize(s, c.shape(0), scales, sizes, roi);
  for (size_t axis = 0; axis < axes.size(); ++axis)
    if (!axes[axis].identity()) d = bring_back(d, axis, s, axes[axis]);
  c.give(0, d);
}

std::vector<float> floats(const GradientContext& c, size_t i) { return c.has(i) ? to_vector<float>(c.in(i)) : std::vector<float>{}; }

GradientFunction resize(const KernelSpec& spec) {
  if (spec.node.is("Resize") && spec.opset >= 11)
    return [s = ResizeSpec::full(spec.node)](GradientContext& c) {
      const std::vector<int64_t> sizes = c.has(3) ? integers(c.in(3)) : std::vector<int64_t>{};
      give_back(c, s, sizes.empty() ? floats(c, 2) : std::vector<float>{}, sizes, floats(c, 1));
    };
  return [s = ResizeSpec::simple(spec.node), scales = spec.node.floats("scales")](GradientContext& c) { give_back(c, s, c.has(1) ? floats(c, 1) : scales, {}, {}); };
}

}  // namespace

std::vector<GradientDef> gradient_resize() { return {{"Resize", resize}, {"Upsample", resize}}; }

}  // namespace infopt
