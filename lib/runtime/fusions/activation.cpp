// Relu or Clip behind a convolution or product whose kernel can end with it.
#include "lib/runtime/fusions/rules.h"

namespace infopt {

std::optional<FusedStep> fuse_activation(PlanView& view, const Node& node) {
  PostActivation post;
  if (!as_bounds(view, node, post)) return std::nullopt;
  const Node* before = view.only_for_one(node.input(0));
  if (!before) return std::nullopt;
  const int64_t version = view.opset(before->domain);
  const OpDef* op = find_op(before->domain, before->op, version);
  if (!op || !op->fuses_activation) return std::nullopt;
  return FusedStep{before->inputs, op->cpu({view.graph(), *before, version, post, &view}), {before->id}, before->id};
}

}  // namespace infopt
