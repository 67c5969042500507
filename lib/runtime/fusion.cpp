#include "lib/runtime/fusion.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "lib/runtime/fusions/rules.h"

namespace infopt {

const Node* PlanView::only_for_one(ValueId value) const {
  if (value == kNone || !hidden(value) || graph().value(value).uses.size() != 1) return nullptr;
  return producer(value);
}

bool as_bounds(PlanView& view, const Node& node, PostActivation& post) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (node.is("Relu")) {
    post = {PostActivation::Clip, 0.0f, kInfinity};
    return true;
  }
  if (!node.is("Clip")) return false;
  post = {PostActivation::Clip, -kInfinity, kInfinity};
  if (const float* low = node.get<float>("min")) post.low = *low;
  if (const float* high = node.get<float>("max")) post.high = *high;
  for (size_t i : {1u, 2u}) {
    if (node.input(i) == kNone) continue;
    const Tensor* bound = view.constant(node.input(i));
    const bool half = bound && view.device() && (bound->dtype() == DType::F16 || bound->dtype() == DType::BF16);
    if (!bound || (bound->dtype() != DType::F32 && !half) || bound->size() != 1) return false;
    (i == 1 ? post.low : post.high) = to_scalar<float>(*bound);
  }
  return post.low <= post.high;
}

bool is_elementwise(const Node& node) {
  static constexpr const char* kNames[] = {"Abs", "Add", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min",
                                           "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu"};
  return node.domain.empty() && node.outputs.size() == 1 && std::any_of(std::begin(kNames), std::end(kNames), [&](const char* name) { return node.op == name; });
}

std::optional<FusedStep> fuse(PlanView& view, const Node& node) {
  for (const Rule& rule : kFusionRules) {
    if (view.device() && !rule.any_device) continue;
    auto step = rule.fuse(view, node);
    if (step && step->kernel) return step;
  }
  return std::nullopt;
}

}  // namespace infopt
