#include "lib/autodiff/adam.h"

#include <cmath>

#include "lib/base/simd.h"

namespace infopt {
namespace {

struct Rates {
  float beta1, beta2, correction1, correction2, epsilon, rate;
};

INFOPT_SIMD void update(float* parameters, const float* gradient, float* first, float* second, int64_t n, const Rates& r) {
  for (int64_t i = 0; i < n; ++i) {
    first[i] = r.beta1 * first[i] + (1 - r.beta1) * gradient[i];
    second[i] = r.beta2 * second[i] + (1 - r.beta2) * gradient[i] * gradient[i];
    parameters[i] -= r.rate * (first[i] * r.correction1) / (std::sqrt(second[i] * r.correction2) + r.epsilon);
  }
}

}  // namespace

void Adam::step(float* parameters, const float* gradient, float rate) {
  ++steps_;
  const auto correction = [&](float beta) { return static_cast<float>(1 / (1 - std::pow(static_cast<double>(beta), static_cast<double>(steps_)))); };
  update(parameters, gradient, first_.data(), second_.data(), static_cast<int64_t>(first_.size()), {beta1_, beta2_, correction(beta1_), correction(beta2_), epsilon_, rate});
}

}  // namespace infopt
