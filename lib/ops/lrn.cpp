// LRN: local response normalization across channels.
#include <algorithm>
#include <cmath>

#include "lib/base/float_math.h"
#include "lib/base/simd.h"
#include "lib/ops/elementwise.h"

namespace infopt {
namespace {

struct Options {
  int64_t size;
  float alpha, beta, bias;
};

INFOPT_SIMD void add_squares(const float* x, float* total, int64_t n) {
  for (int64_t i = 0; i < n; ++i) total[i] += x[i] * x[i];
}

/// y = x · (bias + factor·total)^−beta.
INFOPT_SIMD void divide_by_power(const float* x, const float* total, float* y, int64_t n, float bias, float factor, float beta) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * exp_f(-beta * log_f(bias + factor * total[i]));
}

void run_image(const float* x, float* y, int64_t channels, int64_t space, const Options& options, std::vector<float>& total) {
  const int64_t before = (options.size - 1) / 2, after = options.size - 1 - before;
  for (int64_t c = 0; c < channels; ++c) {
    std::fill(total.begin(), total.end(), 0.0f);
    const int64_t last = std::min(channels - 1, c + after);
    for (int64_t k = std::max<int64_t>(0, c - before); k <= last; ++k) add_squares(x + k * space, total.data(), space);
    divide_by_power(x + c * space, total.data(), y + c * space, space, options.bias, options.alpha / static_cast<float>(options.size), options.beta);
  }
}

void run(KernelContext& context, const Options& options) {
  const Tensor& x = context.in(0);
  const DType dtype = x.dtype();
  if (dtype != DType::F32 && dtype != DType::F64 && !is_16_bit_float(dtype)) refuse_type(dtype);
  if (x.rank() < 2) throw Error(ErrorKind::Malformed, "LRN of a tensor of shape " + to_string(x.shape()) + ", which has no channels");
  const Tensor wide = cast(x, DType::F32);
  Tensor y(DType::F32, x.shape());
  int64_t space = 1;
  for (int64_t d = 2; d < x.rank(); ++d) space *= x.dim(d);
  std::vector<float> total(static_cast<size_t>(space));
  const int64_t image = x.dim(1) * space;
  for (int64_t b = 0; b < x.dim(0); ++b) run_image(wide.data<float>() + b * image, y.mutable_data<float>() + b * image, x.dim(1), space, options, total);
  context.set(0, cast(y, dtype));
}

std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  const Options options{spec.node.i("size", 0), spec.node.f("alpha", 1e-4f), spec.node.f("beta", 0.75f), spec.node.f("bias", 1.0f)};
  if (options.size <= 0 || options.size > (int64_t{1} << 32)) throw Error(ErrorKind::Malformed, "LRN's size is " + std::to_string(options.size));
  return make_kernel([options](KernelContext& context) { run(context, options); });
}

}  // namespace

std::vector<OpDef> op_lrn() { return {{.name = "LRN", .cpu = make}}; }

}  // namespace infopt
