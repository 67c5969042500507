// Y = A·B: dA = dY·Bᵀ, dB = Aᵀ·dY, summed over the axes along which a factor was stretched. Gemm besides: Y = α·A′·B′ + β·C.
#include "lib/autodiff/gradient.h"
#include "lib/ops/matmul.h"
#include "lib/runtime/cpu/dnnl_adapter.h"

namespace infopt {
namespace {

/// The product of matrices along the last two axes; leading axes each equal or 1.
Tensor multiply(const cpu::Product& engine, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b) {
  Shape shape;
  const size_t rank = a.shape().size();
  for (size_t i = 0; i + 2 < rank; ++i) shape.push_back(std::max(a.shape()[i], b.shape()[i]));
  shape.push_back(a.dim(transpose_a ? -1 : -2));
  shape.push_back(b.dim(transpose_b ? -2 : -1));
  Tensor y(DType::F32, shape);
  engine.run(a, transpose_a, b, transpose_b, false, nullptr, y);
  return y;
}

GradientFunction matmul(const KernelSpec&) {
  return [engine = std::make_shared<cpu::Product>()](GradientContext& c) {
    ProductShapes s = align_product(c.shape(0), c.shape(1));
    flatten_rows(s);
    const Tensor a = c.in(0).reshaped(s.a), b = c.in(1).reshaped(s.b), dy = c.dy().reshaped(s.wide);
    if (c.wants(0)) c.give(0, reduce_to(multiply(*engine, dy, false, b, true), s.a).reshaped(c.shape(0)));
    if (c.wants(1)) c.give(1, reduce_to(multiply(*engine, a, true, dy, false), s.b).reshaped(c.shape(1)));
  };
}

Tensor scaled(Tensor t, float by) {
  if (by == 1) return t;
  Tensor out(DType::F32, t.shape());
  for (int64_t i = 0; i < t.size(); ++i) out.mutable_data<float>()[i] = t.data<float>()[i] * by;
  return out;
}

GradientFunction gemm(const KernelSpec& spec) {
  const float alpha = spec.node.f("alpha", 1), beta = spec.node.f("beta", 1);
  const bool ta = spec.node.i("transA", 0) != 0, tb = spec.node.i("transB", 0) != 0;
  return [engine = std::make_shared<cpu::Product>(), alpha, beta, ta, tb](GradientContext& c) {
    const Tensor a = c.in(0), b = c.in(1), dy = scaled(c.dy(), alpha);
    if (c.wants(0)) c.give(0, ta ? multiply(*engine, b, tb, dy, true) : multiply(*engine, dy, false, b, !tb));
    if (c.wants(1)) c.give(1, tb ? multiply(*engine, dy, true, a, ta) : multiply(*engine, a, !ta, dy, false));
    if (c.wants(2)) c.give(2, scaled(reduce_to(c.dy(), c.shape(2)), beta));
  };
}

}  // namespace

std::vector<GradientDef> gradient_product() { return {{"Gemm", gemm}, {"MatMul", matmul}}; }

}  // namespace infopt
