// ConvInteger and QLinearConv: exact int32 sums of 8-bit products. https://onnx.ai/onnx/operators/onnx__QLinearConv.html
#include <algorithm>
#include <cmath>

#include "lib/base/simd.h"
#include "lib/ops/im2col.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

INFOPT_SIMD void multiply_add(int32_t* out, int32_t by, const int16_t* row, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<int32_t>(static_cast<uint32_t>(out[i]) + static_cast<uint32_t>(by * row[i]));
}

struct ConvAttributes {
  WindowAttributes window;
  int64_t groups;
};

ConvAttributes attributes_of(const Node& node) { return {WindowAttributes::of(node), node.i("group", 1)}; }

void check_8_bits(const Tensor& t) {
  if (t.dtype() != DType::U8 && t.dtype() != DType::I8) malformed("an integer convolution takes uint8 and int8, not " + std::string(name_of(t.dtype())));
}

/// Elements less the zero point, which is one for all or one for each entry of the first axis.
std::vector<int16_t> centred(const Tensor& t, const Tensor& zero) {
  check_8_bits(t);
  const std::vector<int64_t> values = to_vector<int64_t>(t), zeros = zero.defined() ? integers(zero) : std::vector<int64_t>{0};
  if (zeros.empty() || (zeros.size() != 1 && static_cast<int64_t>(zeros.size()) != t.dim(0)))
    malformed("a zero point of shape " + to_string(zero.shape()) + " for a tensor of shape " + to_string(t.shape()));
  if (zero.defined()) check_8_bits(zero);
  const size_t inner = zeros.size() == 1 ? std::max<size_t>(1, values.size()) : values.size() / zeros.size();
  std::vector<int16_t> out(values.size());
  for (size_t i = 0; i < values.size(); ++i) out[i] = static_cast<int16_t>(values[i] - zeros[i / inner]);
  return out;
}

/// Σ (x - x_zero) · (w - w_zero), of shape [N, M, out…].
Tensor convolve(const Tensor& x, const Tensor& w, const Tensor& x_zero, const Tensor& w_zero, const ConvAttributes& a) {
  if (x.rank() < 3 || w.rank() != x.rank()) malformed("a convolution of " + to_string(x.shape()) + " with weights " + to_string(w.shape()));
  const int64_t channels = x.dim(1), filters = w.dim(0), per_group = w.dim(1);
  if (a.groups < 1 || filters % a.groups || channels % a.groups || channels / a.groups != per_group)
    malformed("an input of " + to_string(x.shape()) + " doesn't fit weights of " + to_string(w.shape()) + " in " + std::to_string(a.groups) + " groups");
  if (x_zero.defined() && x_zero.size() != 1) malformed("the input's zero point has shape " + to_string(x_zero.shape()));
  const Shape spatial(x.shape().begin() + 2, x.shape().end()), kernel(w.shape().begin() + 2, w.shape().end());
  const Window window = resolve_window(a.window, spatial, kernel);
  const std::vector<int16_t> inputs = centred(x, x_zero), weights = centred(w, w_zero);
  const int64_t size = element_count(spatial), taps = element_count(kernel), outputs = element_count(window.out), depth = per_group * taps;
  Shape shape{x.dim(0), filters};
  shape.insert(shape.end(), window.out.begin(), window.out.end());
  Tensor y = Tensor::zeros(DType::I32, shape);
  std::vector<int16_t> columns(at(element_count({depth, outputs})));
  for (int64_t n = 0; n < x.dim(0); ++n)
    for (int64_t g = 0; g < a.groups; ++g) {
      for (int64_t c = 0; c < per_group; ++c)
        im2col(inputs.data() + ((n * a.groups + g) * per_group + c) * size, spatial, window, int16_t{0}, columns.data() + c * taps * outputs);
      for (int64_t f = g * (filters / a.groups); f < (g + 1) * (filters / a.groups); ++f)
        for (int64_t k = 0; k < depth; ++k)
          if (const int32_t by = weights[at(f * depth + k)])
            multiply_add(y.mutable_data<int32_t>() + (n * filters + f) * outputs, by, columns.data() + k * outputs, outputs);
    }
  return y;
}

Tensor optional_input(KernelContext& c, size_t i) { return c.has(i) ? c.in(i) : Tensor(); }

std::unique_ptr<Kernel> conv_integer(const KernelSpec& spec) {
  return make_kernel([a = attributes_of(spec.node)](KernelContext& c) {
    c.set(0, convolve(c.in(0), c.in(1), optional_input(c, 2), optional_input(c, 3), a));
  });
}

/// The only element, or the channel's.
double of_channel(const std::vector<double>& values, int64_t channel) { return values.size() == 1 ? values[0] : values[at(channel)]; }

/// y = saturate(round_half_even((sum + bias) · sx · sw / sy) + zy).
std::unique_ptr<Kernel> qlinear_conv(const KernelSpec& spec) {
  return make_kernel([a = attributes_of(spec.node)](KernelContext& c) {
    const Tensor sums = convolve(c.in(0), c.in(3), c.in(2), c.in(5), a);
    const double x_scale = to_scalar<double>(c.in(1)), y_scale = to_scalar<double>(c.in(6));
    const auto y_zero = to_scalar<int64_t>(c.in(7));
    const DType dtype = c.in(7).dtype();
    check_8_bits(c.in(7));
    const int64_t filters = sums.dim(1), inner = product(sums.shape(), 2, sums.shape().size());
    const std::vector<double> w_scale = to_vector<double>(c.in(4)), bias = c.has(8) ? to_vector<double>(c.in(8)) : std::vector<double>{0};
    for (const auto* list : {&w_scale, &bias})
      if (list->size() != 1 && static_cast<int64_t>(list->size()) != filters)
        malformed(std::to_string(list->size()) + " scales or biases for " + std::to_string(filters) + " channels");
    const double low = dtype == DType::I8 ? -128 : 0;
    Tensor codes(DType::F32, sums.shape());
    for (int64_t i = 0; i < sums.size(); ++i) {
      const int64_t channel = i / inner % filters;
      const double sum = static_cast<double>(sums.data<int32_t>()[i]) + of_channel(bias, channel);
      const double code = std::nearbyint(sum * (x_scale * of_channel(w_scale, channel) / y_scale)) + static_cast<double>(y_zero);
      codes.mutable_data<float>()[i] = static_cast<float>(std::clamp(code, low, low + 255));
    }
    c.set(0, cast(codes, dtype));
  });
}

}  // namespace

std::vector<OpDef> op_conv_integer() {
  return {{.name = "ConvInteger", .since = 10, .cpu = &conv_integer}, {.name = "QLinearConv", .since = 10, .cpu = &qlinear_conv}};
}

}  // namespace infopt
