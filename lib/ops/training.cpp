// The steps of optimizers, of ai.onnx.preview.training: Adagrad, Adam, Momentum. https://onnx.ai/onnx/operators/
#include <cmath>

#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

/// The elements of one optimized tensor and of its states, in double; `state` are those that the step updates, x first.
struct Elements {
  std::vector<double> gradient;
  std::vector<std::vector<double>> state;
};

/// What the steps have in common: inputs are rate R, count T, then for n tensors all X, all gradients, all first states…; outputs
/// are all X, all first states…. `step` updates one element.
template <class Step> void run_step(KernelContext& c, size_t states, Step&& step) {
  const size_t groups = states + 2, n = c.inputs() > 2 ? (c.inputs() - 2) / groups : 0;
  if (n == 0 || (c.inputs() - 2) % groups != 0) malformed(std::to_string(c.inputs()) + " inputs, where R, T and " + std::to_string(groups) + " for each tensor are needed");
  const double rate = to_scalar<double>(c.in(0)), count = to_scalar<double>(c.in(1));
  for (size_t k = 0; k < n; ++k) {
    const Tensor& x = c.in(2 + k);
    Elements e{to_vector<double>(c.in(2 + n + k)), {to_vector<double>(x)}};
    for (size_t s = 0; s < states; ++s) e.state.push_back(to_vector<double>(c.in(2 + n * (s + 2) + k)));
    bool fits = e.gradient.size() == e.state[0].size();
    for (const auto& s : e.state) fits = fits && s.size() == e.gradient.size();
    if (!fits) malformed("a gradient or a state has another size than its tensor of shape " + to_string(x.shape()));
    for (size_t i = 0; i < e.gradient.size(); ++i) step(e, i, rate, count);
    for (size_t s = 0; s <= states; ++s)
      if (c.wanted(n * s + k)) c.set(n * s + k, cast(Tensor::of<double>(x.shape(), e.state[s]), x.dtype()));
  }
}

std::unique_ptr<Kernel> adagrad(const KernelSpec& spec) {
  const double decay = spec.node.f("decay_factor", 0), epsilon = spec.node.f("epsilon", 1e-6f), norm = spec.node.f("norm_coefficient", 0);
  return make_kernel([=](KernelContext& c) {
    run_step(c, 1, [&](Elements& e, size_t i, double rate, double count) {
      double &x = e.state[0][i], &h = e.state[1][i];
      const double g = norm * x + e.gradient[i];
      h += g * g;
      x -= rate / (1 + count * decay) * g / (std::sqrt(h) + epsilon);
    });
  });
}

std::unique_ptr<Kernel> adam(const KernelSpec& spec) {
  const double alpha = spec.node.f("alpha", 0.9f), beta = spec.node.f("beta", 0.999f), epsilon = spec.node.f("epsilon", 1e-6f);
  const double norm = spec.node.f("norm_coefficient", 0), norm_after = spec.node.f("norm_coefficient_post", 0);
  return make_kernel([=](KernelContext& c) {
    run_step(c, 2, [&](Elements& e, size_t i, double rate, double count) {
      double &x = e.state[0][i], &v = e.state[1][i], &h = e.state[2][i];
      const double g = norm * x + e.gradient[i];
      v = alpha * v + (1 - alpha) * g;
      h = beta * h + (1 - beta) * g * g;
      const double adjusted = count > 0 ? rate * std::sqrt(1 - std::pow(beta, count)) / (1 - std::pow(alpha, count)) : rate;
      x = (1 - norm_after) * (x - adjusted * v / (std::sqrt(h) + epsilon));
    });
  });
}

std::unique_ptr<Kernel> momentum(const KernelSpec& spec) {
  const double alpha = spec.node.f("alpha", 0), beta = spec.node.f("beta", 0), norm = spec.node.f("norm_coefficient", 0);
  const bool nesterov = spec.node.s("mode", "standard") == "nesterov";
  return make_kernel([=](KernelContext& c) {
    run_step(c, 1, [&](Elements& e, size_t i, double rate, double count) {
      double &x = e.state[0][i], &v = e.state[1][i];
      const double g = norm * x + e.gradient[i];
      v = alpha * v + (count > 0 ? beta : 1) * g;
      x -= rate * (nesterov ? g + alpha * v : v);
    });
  });
}

}  // namespace

std::vector<OpDef> op_training() {
  const std::string domain = "ai.onnx.preview.training";
  return {{.name = "Adagrad", .domain = domain, .cpu = &adagrad}, {.name = "Adam", .domain = domain, .cpu = &adam}, {.name = "Momentum", .domain = domain, .cpu = &momentum}};
}

}  // namespace infopt
