// Functions and tests of one element on the device.
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/element_ops.h"

namespace infopt::cuda {
namespace {

DType type_of_input(CudaContext& context) {
  Layout layout;
  return context.in_any(0, layout).dtype();
}

std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  const auto f = unary_function(spec.node, spec.opset, [](size_t) { return nullptr; });
  return make_cuda_kernel(
      [f = *f](CudaContext& context) {
        const DType dtype = type_of_input(context);
        if (is_integer(dtype) ? !f.integers : dtype != DType::F32 && dtype != DType::F64 && !is_16_bit_float(dtype)) refuse_type(dtype);
        const Compute compute = f.fn == Fn::Shrink && is_integer(dtype) ? Compute::Double : compute_for(dtype);
        map_input(context, compute, {load(0), {.fn = f.fn, .p = f.p, .q = f.q}}, dtype);
      },
      "one pass over the elements");
}

std::unique_ptr<Kernel> make_not(const KernelSpec&) {
  return make_cuda_kernel(
      [](CudaContext& context) {
        if (const DType dtype = type_of_input(context); dtype != DType::Bool) refuse_type(dtype);
        map_input(context, Compute::Integer, {load(0), {.fn = Fn::Not}}, DType::Bool);
      },
      "one pass over the elements");
}

std::unique_ptr<Kernel> make_bitwise_not(const KernelSpec&) {
  return make_cuda_kernel(
      [](CudaContext& context) {
        const DType dtype = type_of_input(context);
        if (!is_integer(dtype) || bits_of(dtype) < 8) refuse_type(dtype);
        map_input(context, compute_for(dtype), {load(0), {.fn = Fn::BitwiseNot}}, dtype);
      },
      "one pass over the elements");
}

std::unique_ptr<Kernel> make_test(const KernelSpec& spec) {
  Step test{.fn = Fn::IsNaN};
  if (spec.node.op == "IsInf") test = {.fn = Fn::IsInf, .p = static_cast<float>(spec.node.i("detect_negative", 1) != 0), .q = static_cast<float>(spec.node.i("detect_positive", 1) != 0)};
  return make_cuda_kernel(
      [test](CudaContext& context) {
        const DType dtype = type_of_input(context);
        if (!is_float(dtype)) refuse_type(dtype);
        map_input(context, compute_for(dtype), {load(0), test}, DType::Bool);
      },
      "one pass over the elements");
}

}  // namespace

std::vector<CudaOp> cuda_unary() {
  std::vector<CudaOp> ops;
  for (const char* name : {"Abs", "Neg", "Ceil", "Floor", "Round", "Sqrt", "Reciprocal", "Exp", "Log", "Erf", "Tanh", "Sign", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh",
                           "Asinh", "Acosh", "Atanh", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "HardSigmoid", "HardSwish", "Sigmoid", "Softplus", "Softsign", "Mish",
                           "Swish", "Gelu", "Shrink"})
    ops.push_back({.name = name, .make = &make});
  ops.push_back({.name = "Not", .make = &make_not});
  ops.push_back({.name = "BitwiseNot", .make = &make_bitwise_not});
  ops.push_back({.name = "IsNaN", .make = &make_test});
  ops.push_back({.name = "IsInf", .make = &make_test});
  return ops;
}

}  // namespace infopt::cuda
