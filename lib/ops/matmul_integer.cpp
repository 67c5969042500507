// MatMulInteger and QLinearMatMul: exact int32 sums of 8-bit products.
#include <algorithm>
#include <cmath>

#include "lib/base/error.h"
#include "lib/base/simd.h"
#include "lib/ops/op.h"

namespace infopt {
namespace {

INFOPT_SIMD void multiply_add(int32_t* out, int32_t by, const int16_t* row, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] += by * row[i];
}

/// 8-bit elements less their zero points, wide enough for any sign; a zero point for all, for each row, or for each column.
std::vector<int16_t> centred(const Tensor& t, const Tensor& zero, bool by_row) {
  const auto values = to_vector<int64_t>(t);
  const auto zeros = zero.defined() ? to_vector<int64_t>(zero) : std::vector<int64_t>{0};
  const int64_t columns = t.dim(-1), rows = t.rank() > 1 ? t.dim(-2) : 1;
  const int64_t wanted = by_row ? rows : columns;
  if (zeros.size() != 1 && static_cast<int64_t>(zeros.size()) != wanted) throw Error(ErrorKind::Malformed, "a zero point of shape " + to_string(zero.shape()) + " for a tensor of " + to_string(t.shape()));
  std::vector<int16_t> out(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    const auto z = static_cast<size_t>(zeros.size() == 1 ? 0 : by_row ? at / columns % rows : at % columns);
    out[i] = static_cast<int16_t>(values[i] - zeros[z]);
  }
  return out;
}

struct Product {
  Shape shape;
  std::vector<int32_t> sums;
};

/// NumPy's rules: leading axes broadcast, vectors are rows and columns.
Product multiply(const Tensor& a_given, const Tensor& b_given, const Tensor& a_zero, const Tensor& b_zero) {
  if (a_given.rank() == 0 || b_given.rank() == 0) throw Error(ErrorKind::Malformed, "a product of scalars");
  const bool vector_a = a_given.rank() == 1, vector_b = b_given.rank() == 1;
  const Tensor a = vector_a ? a_given.reshaped({1, a_given.dim(0)}) : a_given, b = vector_b ? b_given.reshaped({b_given.dim(0), 1}) : b_given;
  const int64_t m = a.dim(-2), k = a.dim(-1), n = b.dim(-1);
  const size_t rank = static_cast<size_t>(std::max(a.rank(), b.rank()));
  Shape as = a.shape(), bs = b.shape(), batch;
  as.insert(as.begin(), rank - as.size(), 1);
  bs.insert(bs.begin(), rank - bs.size(), 1);
  bool fits = b.dim(-2) == k;
  for (size_t i = 0; i + 2 < rank; ++i) {
    fits = fits && (as[i] == bs[i] || as[i] == 1 || bs[i] == 1);
    batch.push_back(as[i] == 1 ? bs[i] : as[i]);
  }
  if (!fits) throw Error(ErrorKind::Malformed, "shapes " + to_string(a_given.shape()) + " and " + to_string(b_given.shape()) + " don't fit for a product");
  const auto left = centred(a, a_zero, true), right = centred(b, b_zero, false);
  Product p;
  p.shape = batch;
  if (!vector_a) p.shape.push_back(m);
  if (!vector_b) p.shape.push_back(n);
  const int64_t batches = element_count(batch);
  p.sums.assign(static_cast<size_t>(batches * m * n), 0);
  for (int64_t q = 0; q < batches; ++q) {
    int64_t rest = q, a_at = 0, b_at = 0, a_step = 1, b_step = 1;
    for (size_t i = rank - 2; i-- > 0;) {
      const int64_t index = rest % batch[i];
      rest /= batch[i];
      a_at += as[i] == 1 ? 0 : index * a_step;
      b_at += bs[i] == 1 ? 0 : index * b_step;
      a_step *= as[i];
      b_step *= bs[i];
    }
    for (int64_t r = 0; r < m; ++r)
      for (int64_t i = 0; i < k; ++i) {
        const int32_t by = left[static_cast<size_t>((a_at * m + r) * k + i)];
        if (by != 0) multiply_add(p.sums.data() + (q * m + r) * n, by, right.data() + (b_at * k + i) * n, n);
      }
  }
  return p;
}

Tensor optional_input(KernelContext& context, size_t i) { return context.has(i) ? context.in(i) : Tensor(); }

void run_matmul_integer(KernelContext& context) {
  const Product p = multiply(context.in(0), context.in(1), optional_input(context, 2), optional_input(context, 3));
  context.set(0, Tensor::of<int32_t>(p.shape, p.sums));
}

/// y = saturate(round_half_even(sum · sa · sb / sy) + zy); the weight scale may be one for each column.
void run_qlinear_matmul(KernelContext& context) {
  const Product p = multiply(context.in(0), context.in(3), context.in(2), context.in(5));
  const auto a_scale = to_vector<double>(context.in(1)), b_scale = to_vector<double>(context.in(4)), y_scale = to_vector<double>(context.in(6));
  const auto y_zero = to_vector<int64_t>(context.in(7));
  if (a_scale.empty() || b_scale.empty() || y_scale.size() != 1 || y_zero.size() != 1) throw Error(ErrorKind::Malformed, "its output needs one scale and one zero point");
  const int64_t n = context.in(3).rank() > 1 ? context.in(3).dim(-1) : 1, m = context.in(0).rank() > 1 ? context.in(0).dim(-2) : 1;
  const DType dtype = context.in(7).dtype();
  const double low = dtype == DType::I8 ? -128 : 0;
  std::vector<float> codes(p.sums.size());
  for (size_t i = 0; i < codes.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    const double scale = a_scale[a_scale.size() == 1 ? 0 : static_cast<size_t>(at / n % m)] * b_scale[b_scale.size() == 1 ? 0 : static_cast<size_t>(at % n)] / y_scale[0];
    codes[i] = static_cast<float>(std::clamp(std::nearbyint(p.sums[i] * scale) + static_cast<double>(y_zero[0]), low, low + 255));
  }
  context.set(0, cast(Tensor::of<float>(p.shape, codes), dtype));
}

}  // namespace

std::vector<OpDef> op_matmul_integer() {
  return {
      {.name = "MatMulInteger", .cpu = [](const KernelSpec&) { return make_kernel(run_matmul_integer); }},
      {.name = "QLinearMatMul", .cpu = [](const KernelSpec&) { return make_kernel(run_qlinear_matmul); }},
  };
}

}  // namespace infopt
