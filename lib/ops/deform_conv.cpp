// DeformConv: a convolution whose taps are each moved by an offset, and weighed by a mask. In two spatial dimensions.
// https://onnx.ai/onnx/operators/onnx__DeformConv.html
#include <cmath>

#include "lib/base/simd.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/window.h"

namespace infopt {
namespace {

INFOPT_SIMD void multiply_add(float* out, float by, const float* row, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] += by * row[i];
}

/// Between the four pixels around (y, x); zero outside.
float bilinear(const float* image, int64_t height, int64_t width, double y, double x) {
  if (!(y > -1 && x > -1 && y < static_cast<double>(height) && x < static_cast<double>(width))) return 0;
  const double top = std::floor(y), left = std::floor(x);
  const auto pixel = [&](double i, double j) -> double {
    const auto row = static_cast<int64_t>(i), column = static_cast<int64_t>(j);
    return row < 0 || column < 0 || row >= height || column >= width ? 0.0 : image[row * width + column];
  };
  const double v = y - top, u = x - left;
  return static_cast<float>((1 - v) * ((1 - u) * pixel(top, left) + u * pixel(top, left + 1)) +
                            v * ((1 - u) * pixel(top + 1, left) + u * pixel(top + 1, left + 1)));
}

struct Operands {
  Tensor x, weights, offset, bias, mask;
  Window window;
  int64_t groups, offset_groups, taps, outputs;
};

Operands operands_of(KernelContext& c, const WindowAttributes& attributes, int64_t groups, int64_t offset_groups) {
  const auto floats = [&](size_t i) { return c.has(i) ? cast(c.in(i), DType::F32) : Tensor(); };
  Operands o{floats(0), floats(1), floats(2), floats(3), floats(4), {}, groups, offset_groups, 0, 0};
  if (o.x.rank() == 3 || o.x.rank() > 4) unsupported("DeformConv in other than two spatial dimensions");
  if (o.x.rank() != 4 || o.weights.rank() != 4 || o.offset.rank() != 4)
    malformed("DeformConv of " + to_string(o.x.shape()) + " with weights " + to_string(o.weights.shape()) + " and offsets " + to_string(o.offset.shape()));
  const int64_t channels = o.x.dim(1), filters = o.weights.dim(0);
  if (groups < 1 || offset_groups < 1 || channels % groups || filters % groups || channels % offset_groups || channels / groups != o.weights.dim(1))
    malformed("an input of " + to_string(o.x.shape()) + " doesn't fit weights of " + to_string(o.weights.shape()) + " in " + std::to_string(groups) + " groups");
  o.window = resolve_window(attributes, {o.x.dim(2), o.x.dim(3)}, {o.weights.dim(2), o.weights.dim(3)});
  o.taps = o.weights.dim(2) * o.weights.dim(3);
  o.outputs = o.window.out[0] * o.window.out[1];
  const Shape per_tap{o.x.dim(0), offset_groups * o.taps, o.window.out[0], o.window.out[1]};
  Shape moves = per_tap;
  moves[1] *= 2;
  if (o.offset.shape() != moves) malformed("offsets of shape " + to_string(o.offset.shape()) + ", not " + to_string(moves));
  if (o.mask.defined() && o.mask.shape() != per_tap) malformed("a mask of shape " + to_string(o.mask.shape()) + ", not " + to_string(per_tap));
  if (o.bias.defined() && o.bias.shape() != Shape{filters}) malformed("a bias of shape " + to_string(o.bias.shape()) + ", not [" + std::to_string(filters) + "]");
  return o;
}

/// What the taps of one channel see: [taps][outputs].
void sample(const Operands& o, int64_t n, int64_t channel, float* columns) {
  const int64_t height = o.x.dim(2), width = o.x.dim(3), group = channel / (o.x.dim(1) / o.offset_groups);
  const float* image = o.x.data<float>() + (n * o.x.dim(1) + channel) * height * width;
  const Window& w = o.window;
  for (int64_t t = 0; t < o.taps; ++t) {
    const int64_t place = (n * o.offset_groups + group) * o.taps + t;
    const float* dy = o.offset.data<float>() + 2 * place * o.outputs;
    const float* dx = dy + o.outputs;
    const float* mask = o.mask.defined() ? o.mask.data<float>() + place * o.outputs : nullptr;
    const int64_t top = t / w.kernel[1] * w.dilations[0] - w.pads_begin[0], left = t % w.kernel[1] * w.dilations[1] - w.pads_begin[1];
    for (int64_t i = 0; i < o.outputs; ++i) {
      const double y = static_cast<double>(top + i / w.out[1] * w.strides[0]) + dy[i], x = static_cast<double>(left + i % w.out[1] * w.strides[1]) + dx[i];
      *columns++ = bilinear(image, height, width, y, x) * (mask ? mask[i] : 1.0f);
    }
  }
}

std::unique_ptr<Kernel> deform_conv(const KernelSpec& spec) {
  const WindowAttributes attributes = WindowAttributes::of(spec.node);
  const int64_t groups = spec.node.i("group", 1), offset_groups = spec.node.i("offset_group", 1);
  return make_kernel([=](KernelContext& c) {
    const DType dtype = c.in(0).dtype();
    if (!is_float(dtype)) malformed("DeformConv of " + std::string(name_of(dtype)));
    const Operands o = operands_of(c, attributes, groups, offset_groups);
    const int64_t filters = o.weights.dim(0), per_group = o.weights.dim(1), depth = per_group * o.taps;
    Tensor y = Tensor::zeros(DType::F32, {o.x.dim(0), filters, o.window.out[0], o.window.out[1]});
    std::vector<float> columns(at(element_count({depth, o.outputs})));
    for (int64_t n = 0; n < o.x.dim(0); ++n)
      for (int64_t g = 0; g < groups; ++g) {
        for (int64_t k = 0; k < per_group; ++k) sample(o, n, g * per_group + k, columns.data() + k * o.taps * o.outputs);
        for (int64_t f = g * (filters / groups); f < (g + 1) * (filters / groups); ++f) {
          float* out = y.mutable_data<float>() + (n * filters + f) * o.outputs;
          if (o.bias.defined()) std::fill_n(out, o.outputs, o.bias.data<float>()[f]);
          for (int64_t k = 0; k < depth; ++k) multiply_add(out, o.weights.data<float>()[f * depth + k], columns.data() + k * o.outputs, o.outputs);
        }
      }
    c.set(0, cast(y, dtype));
  });
}

}  // namespace

std::vector<OpDef> op_deform_conv() { return {{.name = "DeformConv", .since = 19, .cpu = &deform_conv}}; }

}  // namespace infopt
