// Functions of two elements, stretched to one shape by NumPy's rules: each operand's gradient is summed back over what was stretched.
#include <cmath>

#include "lib/autodiff/gradient.h"
#include "lib/base/error.h"

namespace infopt {
namespace {

/// by_a(a, b, y, dy) and by_b likewise.
template <class FA, class FB> GradientFunction each(FA by_a, FB by_b) {
  return [by_a, by_b](GradientContext& c) {
    const Layout layout = c.shape(0) == c.shape(1) ? c.layout() : Layout::Plain;
    const Tensor dy = c.dy(0, layout), y = c.out(0, layout);
    const Tensor a = broadcast_to(c.in(0, layout), dy.shape()), b = broadcast_to(c.in(1, layout), dy.shape());
    const float *pa = a.data<float>(), *pb = b.data<float>(), *py = y.data<float>(), *pd = dy.data<float>();
    const auto give = [&](size_t i, auto f) {
      if (!c.wants(i)) return;
      Tensor d(DType::F32, dy.shape());
      float* to = d.mutable_data<float>();
      for (int64_t k = 0; k < d.size(); ++k) to[k] = f(pa[k], pb[k], py[k], pd[k]);
      c.give(i, reduce_to(d, c.shape(i)), layout);
    };
    give(0, by_a);
    give(1, by_b);
  };
}

/// dy goes on as it is to the first, times `sign` to the second.
GradientFunction linear(float sign) {
  return [sign](GradientContext& c) {
    const Layout layout = c.shape(0) == c.shape(1) ? c.layout() : Layout::Plain;
    const Tensor dy = c.dy(0, layout);
    if (c.wants(0)) c.give(0, reduce_to(dy, c.shape(0)), layout);
    if (!c.wants(1)) return;
    Tensor d = reduce_to(dy, c.shape(1));
    if (sign < 0) {
      d = d.clone();
      for (int64_t i = 0; i < d.size(); ++i) d.mutable_data<float>()[i] *= sign;
    }
    c.give(1, d, layout);
  };
}

GradientFunction add(const KernelSpec&) { return linear(1); }
GradientFunction sub(const KernelSpec&) { return linear(-1); }

GradientFunction mul(const KernelSpec&) {
  return each([](float, float b, float, float d) { return d * b; }, [](float a, float, float, float d) { return d * a; });
}

GradientFunction div(const KernelSpec&) {
  return each([](float, float b, float, float d) { return d / b; }, [](float, float b, float y, float d) { return -d * y / b; });
}

GradientFunction power(const KernelSpec&) {
  return each([](float a, float b, float, float d) { return b == 0 ? 0.0f : b == 2 ? d * 2 * a : d * b * std::pow(a, b - 1); },
              [](float a, float, float y, float d) { return a > 0 ? d * y * std::log(a) : 0.0f; });
}

/// Where both are equal, the first has it.
GradientFunction maximum(const KernelSpec&) {
  return each([](float a, float b, float, float d) { return a >= b ? d : 0.0f; }, [](float a, float b, float, float d) { return a >= b ? 0.0f : d; });
}

GradientFunction minimum(const KernelSpec&) {
  return each([](float a, float b, float, float d) { return a <= b ? d : 0.0f; }, [](float a, float b, float, float d) { return a <= b ? 0.0f : d; });
}

GradientFunction two_of(const KernelSpec& spec, GradientFunction (*make)(const KernelSpec&)) {
  if (spec.node.inputs.size() == 2) return make(spec);
  if (spec.node.inputs.size() != 1) throw Error(ErrorKind::Unsupported, "the gradient of " + spec.node.op + " of more than two");
  return [](GradientContext& c) { c.give(0, c.dy()); };
}

GradientFunction sum(const KernelSpec&) {
  return [](GradientContext& c) {
    for (size_t i = 0; i < c.inputs(); ++i)
      if (c.wants(i)) c.give(i, reduce_to(c.dy(), c.shape(i)));
  };
}

GradientFunction prelu(const KernelSpec&) {
  return each([](float a, float b, float, float d) { return a >= 0 ? d : b * d; }, [](float a, float, float, float d) { return a >= 0 ? 0.0f : a * d; });
}

GradientFunction where(const KernelSpec&) {
  return [](GradientContext& c) {
    const Tensor dy = c.dy(), mask = broadcast_to(c.in(0), dy.shape());
    for (size_t i : {1u, 2u}) {
      if (!c.wants(i)) continue;
      Tensor d(DType::F32, dy.shape());
      for (int64_t k = 0; k < d.size(); ++k) d.mutable_data<float>()[k] = mask.data<bool>()[k] == (i == 1) ? dy.data<float>()[k] : 0.0f;
      c.give(i, reduce_to(d, c.shape(i)));
    }
  };
}

}  // namespace

std::vector<GradientDef> gradient_binary() {
  return {{"Add", add}, {"Sub", sub}, {"Mul", mul}, {"Div", div}, {"Pow", power}, {"PRelu", prelu}, {"Where", where}, {"Sum", sum},
          {"Max", [](const KernelSpec& s) { return two_of(s, maximum); }}, {"Min", [](const KernelSpec& s) { return two_of(s, minimum); }}};
}

}  // namespace infopt
