// Softmax → QuantizeLinear on a device: the probabilities are written as codes alone, where nobody else reads them.
#include "lib/runtime/fusions/code_end.h"
#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/fusions/value_facts.h"

namespace infopt {

std::optional<FusedStep> fuse_coded_softmax(PlanView& view, const Node& node) {
  if (!view.device()) return std::nullopt;
  const auto codes = code_end(view, node);
  const Node* softmax = codes ? view.only_for_one(node.input(0)) : nullptr;
  if (!softmax || !softmax->is("Softmax") || view.constant(node.input(0))) return std::nullopt;
  if (!has_type(view, node.input(0), DType::F32) && !has_type(view, node.input(0), DType::F16) && !has_type(view, node.input(0), DType::BF16)) return std::nullopt;
  const bool matrix = view.opset("") < 13;
  FusedStep step;
  step.inputs = {softmax->input(0)};
  step.covers = {softmax->id};
  step.named = softmax->id;
  step.kernel = view.device()->softmax({softmax->i("axis", matrix ? 1 : -1), matrix, *codes});
  return step;
}

}  // namespace infopt
