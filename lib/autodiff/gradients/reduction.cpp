// Sums, means and norms over axes: dy stretched back over what was reduced, times 1, 1/n or x/y. Extremes: dy to the first element that is one.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/autodiff/gradient.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

/// The output's shape with the reduced axes kept as 1. Axes are an attribute or the second input; none: all, or no reduction where the node says so.
Shape kept_shape(const GradientContext& c) {
  Shape shape = c.shape(0);
  std::vector<int64_t> axes = c.has(1) ? integers(c.in(1)) : c.node().ints("axes");
  if (axes.empty() && c.node().i("noop_with_empty_axes", 0) != 0) return shape;
  if (axes.empty())
    for (size_t i = 0; i < shape.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  for (int64_t a : normal_axes(axes, static_cast<int64_t>(shape.size()))) shape[static_cast<size_t>(a)] = 1;
  return shape;
}

enum class Kind { Sum, Mean, L1, L2, SumSquare, LogSumExp };

template <Kind kind> GradientFunction reduction(const KernelSpec&) {
  return [](GradientContext& c) {
    if (!c.wants(0)) return;
    const Shape kept = kept_shape(c);
    Tensor dx = broadcast_to(c.dy().reshaped(kept), c.shape(0)).clone();
    float* d = dx.mutable_data<float>();
    if (kind == Kind::Mean) {
      const float by = static_cast<float>(element_count(kept)) / static_cast<float>(std::max<int64_t>(1, dx.size()));
      for (int64_t i = 0; i < dx.size(); ++i) d[i] *= by;
    }
    if (kind == Kind::L2 || kind == Kind::SumSquare) {
      const Tensor x = c.in(0), y = broadcast_to(c.out(0).reshaped(kept), c.shape(0));
      const float *px = x.data<float>(), *py = y.data<float>();
      for (int64_t i = 0; i < dx.size(); ++i) d[i] *= kind == Kind::SumSquare ? 2 * px[i] : py[i] > 0 ? px[i] / py[i] : 0.0f;
    }
    if (kind == Kind::L1 || kind == Kind::LogSumExp) {
      const Tensor x = c.in(0), y = broadcast_to(c.out(0).reshaped(kept), c.shape(0));
      const float *px = x.data<float>(), *py = y.data<float>();
      for (int64_t i = 0; i < dx.size(); ++i) d[i] *= kind == Kind::LogSumExp ? std::exp(px[i] - py[i]) : px[i] > 0 ? 1.0f : px[i] < 0 ? -1.0f : 0.0f;
    }
    c.give(0, dx);
  };
}

GradientFunction extreme(const KernelSpec&) {
  return [](GradientContext& c) {
    if (!c.wants(0)) return;
    const Shape kept = kept_shape(c);
    const Tensor x = c.in(0), y = c.out(0), dy = c.dy();
    Tensor numbers(DType::I64, kept);
    std::iota(numbers.mutable_data<int64_t>(), numbers.mutable_data<int64_t>() + numbers.size(), int64_t{0});
    const Tensor from = broadcast_to(numbers, x.shape());
    std::vector<bool> found(static_cast<size_t>(numbers.size()), false);
    Tensor dx = Tensor::zeros(DType::F32, x.shape());
    for (int64_t i = 0; i < x.size(); ++i) {
      const int64_t o = from.data<int64_t>()[i];
      if (found[static_cast<size_t>(o)] || x.data<float>()[i] != y.data<float>()[o]) continue;
      found[static_cast<size_t>(o)] = true;
      dx.mutable_data<float>()[i] = dy.data<float>()[o];
    }
    c.give(0, dx);
  };
}

}  // namespace

std::vector<GradientDef> gradient_reduction() {
  return {{"ReduceSum", reduction<Kind::Sum>}, {"ReduceMean", reduction<Kind::Mean>}, {"ReduceL2", reduction<Kind::L2>}, {"ReduceSumSquare", reduction<Kind::SumSquare>},
          {"ReduceL1", reduction<Kind::L1>}, {"ReduceLogSumExp", reduction<Kind::LogSumExp>}, {"ReduceMax", extreme}, {"ReduceMin", extreme}};
}

}  // namespace infopt
