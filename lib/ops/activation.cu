// Clip on the device, its bounds attributes or inputs. The other activations: lib/ops/unary.cu.
#include "lib/base/error.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/element_ops.h"

namespace infopt::cuda {
namespace {

std::unique_ptr<Kernel> clip_by_attributes(const UnaryFunction& f) {
  return make_cuda_kernel(
      [f](CudaContext& context) {
        Layout layout;
        const DType dtype = context.in_any(0, layout).dtype();
        if (dtype != DType::F32 && dtype != DType::F64 && !is_16_bit_float(dtype)) refuse_type(dtype);
        map_input(context, compute_for(dtype), {load(0), {.fn = Fn::Clip, .p = f.p, .q = f.q}}, dtype);
      },
      "one pass over the elements");
}

void clip(CudaContext& context) {
  Layout layout;
  const Tensor& x = context.in_any(0, layout);
  const DType dtype = x.dtype();
  const bool small_float = dtype == DType::F32 || is_16_bit_float(dtype);
  if (!small_float && dtype != DType::F64 && (!is_integer(dtype) || bits_of(dtype) < 8)) refuse_type(dtype);
  std::vector<Operand> operands{{dtype, x.raw(), {x.size()}}};
  std::vector<Step> steps{load(0)};
  for (size_t i : {1u, 2u}) {
    if (!context.has(i)) continue;
    const Tensor& bound = context.in(i);
    if (bound.size() != 1 || (!small_float && bound.dtype() != dtype)) throw Error(ErrorKind::Malformed, "a bound of Clip isn't one number of the input's type");
    steps.push_back(with_operand(i == 1 ? Fn::Max : Fn::Min, static_cast<uint8_t>(operands.size())));
    operands.push_back({bound.dtype(), bound.raw(), {}});
  }
  Tensor& y = context.out(0, dtype, x.shape(), layout);
  run_elements(context.stream(), compute_for(dtype), steps, operands, operands[0].shape, dtype, y.mutable_raw());
}

std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  if (spec.opset < 11) return clip_by_attributes(*unary_function(spec.node, spec.opset, [](size_t) { return nullptr; }));
  return make_cuda_kernel(&clip, "one pass over the elements");
}

}  // namespace

std::vector<CudaOp> cuda_activation() { return {{.name = "Clip", .make = &make}}; }

}  // namespace infopt::cuda
