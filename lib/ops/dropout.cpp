// Dropout as inference has it: the input, and a mask of all true.
#include <algorithm>

#include "lib/ops/elementwise.h"

namespace infopt {
namespace {

/// Before opset 10 the mask has the input's type.
void run(KernelContext& context, bool mask_like_input) {
  if (context.has(2) && to_scalar<int64_t>(context.in(2)) != 0 && !(context.has(1) && to_scalar<double>(context.in(1)) == 0))
    throw Error(ErrorKind::Unsupported, "Dropout in training mode");
  Layout layout;
  const Tensor& x = context.in_any(0, layout);
  if (context.wanted(1)) {
    Tensor mask(DType::Bool, x.shape());
    std::fill_n(mask.mutable_data<bool>(), mask.size(), true);
    context.set(1, mask_like_input ? cast(mask, x.dtype()) : mask);
  }
  context.set(0, x, layout);
}

std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  return make_kernel([mask_like_input = spec.opset < 10](KernelContext& context) { run(context, mask_like_input); });
}

}  // namespace

std::vector<OpDef> op_dropout() { return {{.name = "Dropout", .since = 7, .cpu = make}}; }

}  // namespace infopt
