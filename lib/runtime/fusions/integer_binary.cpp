// Add and Mul of two tensors of codes, with bounds, rounded to codes.
#include "lib/base/error.h"
#include "lib/runtime/fusions/code_sum.h"
#include "lib/runtime/fusions/quantized.h"
#include "lib/runtime/fusions/rules.h"

namespace infopt {
namespace {

class CodeBinaryKernel : public Kernel {
 public:
  CodeBinaryKernel(cpu::Int8Binary how, bool product) : how_(how), product_(product) {}
  void run(KernelContext& context) const override {
    CodeOperand a, b;
    a.tensor = context.in_any(0, a.layout);
    b.tensor = context.in_any(1, b.layout);
    if (a.tensor.dtype() != how_.a_dtype || b.tensor.dtype() != how_.b_dtype) throw Error(ErrorKind::Malformed, "codes and zero points of different types");
    const CodePlan plan = plan_codes(a, b);
    Tensor& y = context.out(0, how_.output, plan.shape, plan.layout);
    combine_codes(how_, product_, plan, std::move(a), std::move(b), y);
  }
  ByItem by_item() const override { return ByItem::All; }
  std::string describe() const override { return product_ ? "int8 product by element" : "int8 sum"; }

 private:
  cpu::Int8Binary how_;
  bool product_;
};

}  // namespace

std::optional<FusedStep> fuse_integer_binary(PlanView& view, const Node& node) {
  const auto output = quantizes(view, node);
  if (!output) return std::nullopt;
  FusedStep step;
  PostActivation bounds;
  const Node* last = view.only_for_one(node.input(0));
  if (last && as_bounds(view, *last, bounds)) {
    step.covers.push_back(last->id);
    last = view.only_for_one(last->input(0));
  }
  if (!last || (!last->is("Add") && !last->is("Mul")) || last->inputs.size() != 2) return std::nullopt;
  const auto a = dequantized(view, last->input(0)), b = dequantized(view, last->input(1));
  if (!a || !b) return std::nullopt;
  const bool product = last->is("Mul");
  cpu::Int8Binary how{a->dtype, b->dtype, output->dtype, a->zero, b->zero, output->zero};
  how.a_ratio = product ? a->scale * b->scale / output->scale : a->scale / output->scale;
  how.b_ratio = product ? 1 : b->scale / output->scale;
  if (bounds.kind == PostActivation::Clip) how.low = bounds.low / output->scale, how.high = bounds.high / output->scale;
  step.covers.push_back(last->id);
  step.inputs = {a->value, b->value};
  step.named = last->id;
  if (const Device* device = view.device()) step.kernel = device->integer_binary({how, product});
  else step.kernel = std::make_unique<CodeBinaryKernel>(how, product);
  return step;
}

}  // namespace infopt
