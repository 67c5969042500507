// NegativeLogLikelihoodLoss: what training losses come down to (SoftmaxCrossEntropyLoss is ONNX's own body around it).
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

enum class Reduction { None, Sum, Mean };

Reduction reduction_of(const Node& node) {
  const std::string name = node.s("reduction", "mean");
  if (name == "none") return Reduction::None;
  if (name == "sum") return Reduction::Sum;
  if (name == "mean") return Reduction::Mean;
  malformed(node.op + " with the reduction '" + name + "'");
}

/// The losses before the reduction, and the weight of each.
struct Losses {
  std::vector<double> loss, weight;
};

/// x[N,C,d…] of log-probabilities, target[N,d…] of classes: loss = -weight[target] · x[n,target,d…].
Losses losses(const Tensor& x, const Tensor& target, const std::vector<double>& weights, const int64_t* ignored) {
  const std::vector<double> values = to_vector<double>(x);
  const std::vector<int64_t> classes = integers(target);
  const int64_t channels = x.dim(1), inner = product(x.shape(), 2, x.shape().size());
  Losses l{std::vector<double>(classes.size()), std::vector<double>(classes.size())};
  for (size_t i = 0; i < classes.size(); ++i) {
    if (ignored && classes[i] == *ignored) continue;
    if (classes[i] < 0 || classes[i] >= channels)
      malformed("the target " + std::to_string(classes[i]) + " is none of the " + std::to_string(channels) + " classes");
    const auto n = static_cast<int64_t>(i) / inner, d = static_cast<int64_t>(i) % inner;
    l.weight[i] = weights.empty() ? 1 : weights[at(classes[i])];
    l.loss[i] = -l.weight[i] * values[at((n * channels + classes[i]) * inner + d)];
  }
  return l;
}

std::unique_ptr<Kernel> negative_log_likelihood(const KernelSpec& spec) {
  const Reduction reduction = reduction_of(spec.node);
  const int64_t* given = spec.node.get<int64_t>("ignore_index");
  const bool ignores = given != nullptr;
  const int64_t ignored = ignores ? *given : 0;
  return make_kernel([=](KernelContext& c) {
    const Tensor &x = c.in(0), &target = c.in(1);
    Shape fits = x.shape();
    if (x.rank() >= 2) fits.erase(fits.begin() + 1);
    if (x.rank() < 2 || target.shape() != fits)
      malformed("targets of shape " + to_string(target.shape()) + " for log-probabilities of shape " + to_string(x.shape()));
    const std::vector<double> weights = c.has(2) ? to_vector<double>(c.in(2)) : std::vector<double>{};
    if (c.has(2) && static_cast<int64_t>(weights.size()) != x.dim(1))
      malformed(std::to_string(weights.size()) + " weights for " + std::to_string(x.dim(1)) + " classes");
    const Losses l = losses(x, target, weights, ignores ? &ignored : nullptr);
    if (reduction == Reduction::None) return c.set(0, cast(Tensor::of<double>(target.shape(), l.loss), x.dtype()));
    double sum = 0, weight = 0;
    for (size_t i = 0; i < l.loss.size(); ++i) sum += l.loss[i], weight += l.weight[i];
    c.set(0, cast(Tensor::scalar(reduction == Reduction::Sum ? sum : sum / weight), x.dtype()));
  });
}

}  // namespace

std::vector<OpDef> op_loss() { return {{.name = "NegativeLogLikelihoodLoss", .since = 12, .cpu = &negative_log_likelihood}}; }

}  // namespace infopt
