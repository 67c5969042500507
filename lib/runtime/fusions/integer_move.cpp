// Operators that only move or pick elements work on the codes themselves, where all have one scale and zero point.
#include <algorithm>

#include "lib/runtime/fusions/quantized.h"
#include "lib/runtime/fusions/rules.h"

namespace infopt {
namespace {

/// Which inputs are moved: the first alone, or all.
struct Mover {
  const char* op;
  bool all = false;
};
constexpr Mover kMovers[] = {{"Reshape"}, {"Flatten"}, {"Transpose"}, {"Squeeze"}, {"Unsqueeze"}, {"Slice"}, {"Gather"}, {"Expand"}, {"Tile"}, {"DepthToSpace"}, {"SpaceToDepth"}, {"Identity"}, {"Concat", true}};

/// tf_crop_and_resize invents a value outside of the image.
bool nearest_resize(const Node& node) { return node.is("Resize") && node.s("mode", "nearest") == "nearest" && node.s("coordinate_transformation_mode", "") != "tf_crop_and_resize"; }

}  // namespace

std::optional<FusedStep> fuse_integer_move(PlanView& view, const Node& node) {
  const auto output = quantizes(view, node);
  const Node* before = output ? view.only_for_one(node.input(0)) : nullptr;
  if (!before || !before->domain.empty() || before->outputs.size() != 1) return std::nullopt;
  const auto* mover = std::find_if(std::begin(kMovers), std::end(kMovers), [&](const Mover& m) { return before->op == m.op; });
  if (mover == std::end(kMovers) && !nearest_resize(*before)) return std::nullopt;
  const bool all = mover != std::end(kMovers) && mover->all;
  FusedStep step;
  step.inputs = before->inputs;
  for (size_t i = 0; i < (all ? step.inputs.size() : size_t{1}); ++i) {
    const auto codes = dequantized(view, step.inputs[i]);
    if (!codes) return std::nullopt;
    if (!codes->same_step(*output)) {
      view.refuse(*before, "its input and output have different scales");
      return std::nullopt;
    }
    step.inputs[i] = codes->value;
  }
  if (!find_op("", before->op, view.opset(""))) return std::nullopt;
  step.covers = {before->id};
  step.named = before->id;
  step.kernel = view.make_kernel(*before);
  return step;
}

}  // namespace infopt
