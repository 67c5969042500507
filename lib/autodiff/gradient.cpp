#include "lib/autodiff/gradient.h"

#include <map>

#include "gradient_table.h"
#include "lib/base/error.h"
#include "lib/base/simd.h"
#include "lib/base/strided.h"
#include "lib/runtime/layout.h"

namespace infopt {
namespace {

INFOPT_SIMD void add_rows(const float* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += from[i];
}

/// In eight lanes of doubles.
INFOPT_SIMD float sum_row(const float* from, int64_t n) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t l = 0; l < 8; ++l) lanes[l] += static_cast<double>(from[i + l]);
  for (; i < n; ++i) lanes[i % 8] += static_cast<double>(from[i]);
  double sum = 0;
  for (double l : lanes) sum += l;
  return static_cast<float>(sum);
}

/// [outer, n, inner] to [outer, inner].
Tensor sum_middle(const Tensor& t, int64_t outer, int64_t n, int64_t inner) {
  Tensor out = Tensor::zeros(DType::F32, {outer, inner});
  const float* from = t.data<float>();
  float* to = out.mutable_data<float>();
  for (int64_t o = 0; o < outer; ++o) {
    if (inner == 1) to[o] = sum_row(from + o * n, n);
    else
      for (int64_t i = 0; i < n; ++i) add_rows(from + (o * n + i) * inner, to + o * inner, inner);
  }
  return out;
}

}  // namespace

Tensor Laid::as(Layout wanted) const {
  if (layout == wanted || tensor.rank() < 3) return tensor;
  return convert_layout(tensor, layout, wanted);
}

Tensor GradientContext::dy(size_t i, Layout layout) const {
  return flows(i) ? gradients_[i].as(layout) : Tensor::zeros(DType::F32, outputs_[i].tensor.shape());
}

Tensor reduce_to(const Tensor& t, const Shape& shape) {
  if (t.shape() == shape) return t;
  Shape now = t.shape();
  const size_t lead = now.size() - shape.size();
  Tensor sum = t;
  int64_t outer = 1;
  for (size_t axis = 0; axis < now.size();) {
    const auto summed = [&](size_t a) { return (a < lead || shape[a - lead] == 1) && now[a] != 1; };
    if (!summed(axis)) {
      outer *= now[axis++];
      continue;
    }
    int64_t n = 1, inner = 1;
    size_t end = axis;
    for (; end < now.size() && (summed(end) || now[end] == 1); ++end) n *= now[end], now[end] = 1;
    for (size_t a = end; a < now.size(); ++a) inner *= now[a];
    sum = sum_middle(sum, outer, n, inner);
    axis = end;
  }
  return sum.reshaped(shape);
}

Tensor broadcast_to(const Tensor& t, const Shape& shape) {
  if (t.shape() == shape) return t;
  Shape given = t.shape();
  given.insert(given.begin(), shape.size() - given.size(), 1);
  Shape strides = row_major_strides(given);
  for (size_t i = 0; i < given.size(); ++i)
    if (given[i] == 1) strides[i] = 0;
  return gather_strided(t, shape, 0, strides);
}

const GradientDef* find_gradient(const Node& node) {
  static const std::map<std::string, GradientDef> table = [] {
    std::map<std::string, GradientDef> t;
    for (const auto& family : gradient_families())
      for (const GradientDef& g : family()) t[g.name] = g;
    return t;
  }();
  if (!node.domain.empty()) return nullptr;
  const auto it = table.find(node.op);
  return it == table.end() ? nullptr : &it->second;
}

}  // namespace infopt
