// Functions of one element: dx = dy·f′(x), where it is cheaper by way of y.
#include <cmath>
#include <limits>
#include <numbers>

#include "lib/autodiff/gradient.h"

namespace infopt {
namespace {

/// f(x, y, dy), element by element, in whatever layout dy has.
template <class F> GradientFunction each(F f) {
  return [f](GradientContext& c) {
    if (!c.wants(0)) return;
    const Layout layout = c.layout();
    const Tensor x = c.in(0, layout), y = c.out(0, layout), dy = c.dy(0, layout);
    Tensor dx(DType::F32, x.shape());
    const float *px = x.data<float>(), *py = y.data<float>(), *pd = dy.data<float>();
    float* to = dx.mutable_data<float>();
    for (int64_t i = 0; i < dx.size(); ++i) to[i] = f(px[i], py[i], pd[i]);
    c.give(0, dx, layout);
  };
}

GradientFunction relu(const KernelSpec&) {
  return each([](float x, float, float d) { return x > 0 ? d : 0.0f; });
}

/// Bounds are attributes before opset 11 and inputs since; those that aren't constant are read in the run.
GradientFunction clip(const KernelSpec& spec) {
  constexpr float kMost = std::numeric_limits<float>::max();
  const float low = spec.node.f("min", -kMost), high = spec.node.f("max", kMost);
  return [low, high](GradientContext& c) {
    const float least = c.has(1) ? to_scalar<float>(c.in(1)) : low, most = c.has(2) ? to_scalar<float>(c.in(2)) : high;
    each([least, most](float x, float, float d) { return x >= least && x <= most ? d : 0.0f; })(c);
  };
}

GradientFunction leaky_relu(const KernelSpec& spec) {
  const float alpha = spec.node.f("alpha", 0.01f);
  return each([alpha](float x, float, float d) { return x >= 0 ? d : alpha * d; });
}

GradientFunction elu(const KernelSpec& spec) {
  const float alpha = spec.node.f("alpha", 1);
  return each([alpha](float x, float y, float d) { return x >= 0 ? d : (y + alpha) * d; });
}

GradientFunction hard_sigmoid(const KernelSpec& spec) {
  const float alpha = spec.node.f("alpha", 0.2f);
  return each([alpha](float, float y, float d) { return y > 0 && y < 1 ? alpha * d : 0.0f; });
}

GradientFunction hard_swish(const KernelSpec&) {
  return each([](float x, float, float d) { return x <= -3 ? 0.0f : x >= 3 ? d : d * (2 * x + 3) * (1.0f / 6); });
}

GradientFunction sigmoid(const KernelSpec&) {
  return each([](float, float y, float d) { return d * y * (1 - y); });
}

GradientFunction tanh_(const KernelSpec&) {
  return each([](float, float y, float d) { return d * (1 - y * y); });
}

GradientFunction erf_(const KernelSpec&) {
  return each([](float x, float, float d) { return d * 2 * std::numbers::inv_sqrtpi_v<float> * std::exp(-x * x); });
}

GradientFunction gelu(const KernelSpec& spec) {
  if (spec.node.s("approximate", "none") == "tanh")
    return each([](float x, float, float d) {
      constexpr float k = 0.7978845608f, a = 0.044715f;
      const float t = std::tanh(k * (x + a * x * x * x));
      return d * (0.5f * (1 + t) + 0.5f * x * (1 - t * t) * k * (1 + 3 * a * x * x));
    });
  return each([](float x, float, float d) {
    constexpr float root = std::numbers::sqrt2_v<float> / 2, density = 0.3989422804f;
    return d * (0.5f * (1 + std::erf(x * root)) + x * density * std::exp(-0.5f * x * x));
  });
}

GradientFunction swish(const KernelSpec& spec) {
  const float alpha = spec.node.f("alpha", 1);
  return each([alpha](float x, float, float d) {
    const float s = 1 / (1 + std::exp(-alpha * x));
    return d * (s + alpha * x * s * (1 - s));
  });
}

GradientFunction softplus(const KernelSpec&) {
  return each([](float x, float, float d) { return d / (1 + std::exp(-x)); });
}

GradientFunction square_root(const KernelSpec&) {
  return each([](float, float y, float d) { return d * 0.5f / y; });
}

GradientFunction exponential(const KernelSpec&) {
  return each([](float, float y, float d) { return d * y; });
}

GradientFunction logarithm(const KernelSpec&) {
  return each([](float x, float, float d) { return d / x; });
}

GradientFunction sine(const KernelSpec&) {
  return each([](float x, float, float d) { return d * std::cos(x); });
}

GradientFunction cosine(const KernelSpec&) {
  return each([](float x, float, float d) { return -d * std::sin(x); });
}

GradientFunction softsign(const KernelSpec&) {
  return each([](float x, float, float d) { return d / ((1 + std::fabs(x)) * (1 + std::fabs(x))); });
}

GradientFunction mish(const KernelSpec&) {
  return each([](float x, float, float d) {
    const float t = std::tanh(x > 20 ? x : std::log1p(std::exp(x))), s = 1 / (1 + std::exp(-x));
    return d * (t + x * s * (1 - t * t));
  });
}

GradientFunction selu(const KernelSpec& spec) {
  const float alpha = spec.node.f("alpha", 1.67326319217681884765625f), gamma = spec.node.f("gamma", 1.05070102214813232421875f);
  return each([alpha, gamma](float x, float y, float d) { return x > 0 ? gamma * d : (y + gamma * alpha) * d; });
}

GradientFunction negative(const KernelSpec&) {
  return each([](float, float, float d) { return -d; });
}

GradientFunction reciprocal(const KernelSpec&) {
  return each([](float, float y, float d) { return -d * y * y; });
}

GradientFunction absolute(const KernelSpec&) {
  return each([](float x, float, float d) { return x > 0 ? d : x < 0 ? -d : 0.0f; });
}

}  // namespace

std::vector<GradientDef> gradient_unary() {
  return {{"Relu", relu}, {"Clip", clip}, {"LeakyRelu", leaky_relu}, {"Elu", elu}, {"HardSigmoid", hard_sigmoid}, {"HardSwish", hard_swish}, {"Sigmoid", sigmoid}, {"Tanh", tanh_}, {"Erf", erf_}, {"Gelu", gelu},
          {"Swish", swish}, {"Softplus", softplus}, {"Sqrt", square_root}, {"Exp", exponential}, {"Log", logarithm}, {"Neg", negative}, {"Reciprocal", reciprocal}, {"Abs", absolute},
          {"Sin", sine}, {"Cos", cosine}, {"Softsign", softsign}, {"Mish", mish}, {"Selu", selu}};
}

}  // namespace infopt
