// RandomNormal, RandomUniform (and their …Like), Bernoulli, Multinomial. A node draws the same numbers in every run: by its seed, or by
// a fixed one where it has none, mixed with its place in the graph.
#include <bit>
#include <cmath>

#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

/// Draws from a counter through a 64-bit mixing function (splitmix64).
class Draws {
 public:
  explicit Draws(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }
  /// In [0, 1).
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1.0p-53; }
  double normal() { return std::sqrt(-2 * std::log(1 - uniform())) * std::cos(2 * 3.14159265358979323846 * uniform()); }

 private:
  uint64_t state_;
};

uint64_t seed_of(const KernelSpec& spec) {
  const auto* given = spec.node.get<float>("seed");
  const uint64_t base = given ? std::bit_cast<uint32_t>(*given) : (uint64_t{1} << 32) + static_cast<uint64_t>(spec.node.id);
  return base * 0xD1342543DE82EF95U + 1;
}

template <class F>
Tensor drawn(const Shape& shape, DType dtype, F&& next) {
  Tensor t(DType::F64, shape);
  double* p = t.mutable_data<double>();
  for (int64_t i = 0; i < t.size(); ++i) p[i] = next(i);
  return cast(t, dtype);
}

std::unique_ptr<Kernel> make_random(const KernelSpec& spec, bool normal, bool like) {
  const double a = spec.node.f(normal ? "mean" : "low", 0), b = spec.node.f(normal ? "scale" : "high", 1);
  const uint64_t seed = seed_of(spec);
  const auto dtype = static_cast<DType>(spec.node.i("dtype", like ? 0 : 1));
  const Shape shape = spec.node.ints("shape");
  return make_kernel([=](KernelContext& c) {
    Draws draws(seed);
    const auto next = [&](int64_t) { return normal ? a + b * draws.normal() : a + (b - a) * draws.uniform(); };
    if (!like) return c.set(0, drawn(shape, dtype, next));
    Layout layout;
    const Tensor& x = c.in_any(0, layout);
    c.set(0, drawn(x.shape(), dtype == DType::Undefined ? x.dtype() : dtype, next));
  });
}

std::unique_ptr<Kernel> random_normal(const KernelSpec& spec) { return make_random(spec, true, false); }
std::unique_ptr<Kernel> random_normal_like(const KernelSpec& spec) { return make_random(spec, true, true); }
std::unique_ptr<Kernel> random_uniform(const KernelSpec& spec) { return make_random(spec, false, false); }
std::unique_ptr<Kernel> random_uniform_like(const KernelSpec& spec) { return make_random(spec, false, true); }

std::unique_ptr<Kernel> bernoulli(const KernelSpec& spec) {
  const uint64_t seed = seed_of(spec);
  const auto asked = static_cast<DType>(spec.node.i("dtype", 0));
  return make_kernel([=](KernelContext& c) {
    const Tensor& x = c.in(0);
    const std::vector<double> chance = to_vector<double>(x);
    Draws draws(seed);
    c.set(0, drawn(x.shape(), asked == DType::Undefined ? x.dtype() : asked,
                   [&](int64_t i) { return draws.uniform() < chance[at(i)] ? 1.0 : 0.0; }));
  });
}

std::unique_ptr<Kernel> multinomial(const KernelSpec& spec) {
  const uint64_t seed = seed_of(spec);
  const auto dtype = static_cast<DType>(spec.node.i("dtype", static_cast<int64_t>(DType::I32)));
  const int64_t samples = spec.node.i("sample_size", 1);
  return make_kernel([=](KernelContext& c) {
    const Tensor& x = c.in(0);
    if (x.rank() != 2 || x.dim(1) == 0 || samples < 1)
      malformed("Multinomial of " + std::to_string(samples) + " samples from shape " + to_string(x.shape()));
    const std::vector<double> logits = to_vector<double>(x);
    const int64_t classes = x.dim(1);
    Draws draws(seed);
    c.set(0, drawn({x.dim(0), samples}, dtype, [&](int64_t i) {
            const double* row = logits.data() + i / samples * classes;
            double most = row[0], sum = 0;
            for (int64_t k = 1; k < classes; ++k) most = std::max(most, row[k]);
            for (int64_t k = 0; k < classes; ++k) sum += std::exp(row[k] - most);
            double left = draws.uniform() * sum;
            int64_t chosen = 0;
            while (chosen + 1 < classes && (left -= std::exp(row[chosen] - most)) >= 0) ++chosen;
            return static_cast<double>(chosen);
          }));
  });
}

}  // namespace

std::vector<OpDef> op_random() {
  std::vector<OpDef> all{{.name = "RandomNormal", .cpu = &random_normal},   {.name = "RandomNormalLike", .cpu = &random_normal_like},
                         {.name = "RandomUniform", .cpu = &random_uniform}, {.name = "RandomUniformLike", .cpu = &random_uniform_like},
                         {.name = "Bernoulli", .cpu = &bernoulli},          {.name = "Multinomial", .cpu = &multinomial}};
  for (OpDef& op : all) op.nondeterministic = true;
  return all;
}

}  // namespace infopt
