// Add, Sub, Mul, Div, Mod, Pow, PRelu, and Sum, Mean, Min, Max of any number of operands, on the device.
#include "lib/base/error.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/element_ops.h"

namespace infopt::cuda {
namespace {

void require_number(DType dtype) {
  if (dtype != DType::F32 && dtype != DType::F64 && !is_16_bit_float(dtype) && (!is_integer(dtype) || bits_of(dtype) < 8)) refuse_type(dtype);
}

/// fn(a, b) with b's first axis at a's `axis`: the rule before opset 7.
void run_at_axis(CudaContext& context, Fn fn, int64_t axis) {
  const Tensor &a = context.in(0), &b = context.in(1);
  require_number(a.dtype());
  if (b.dtype() != a.dtype()) refuse_type(b.dtype());
  const int64_t behind = a.rank() - normalize_axis(axis, a.rank()) - b.rank();
  if (behind < 0) throw Error(ErrorKind::Malformed, "shape " + to_string(b.shape()) + " doesn't fit " + to_string(a.shape()) + " at axis " + std::to_string(axis));
  Shape aligned = b.shape();
  aligned.insert(aligned.end(), static_cast<size_t>(behind), 1);
  const Shape shape = broadcast_shape(a.shape(), aligned);
  const std::vector<Operand> operands{operand_of(a), {b.dtype(), b.raw(), aligned}};
  Tensor& y = context.out(0, a.dtype(), shape);
  run_elements(context.stream(), compute_for(a.dtype()), {load(0), with_operand(fn, 1)}, operands, shape, y.dtype(), y.mutable_raw());
}

void run_binary(CudaContext& context, Fn fn) {
  Layout layout;
  require_number(context.in_any(0, layout).dtype());
  run_broadcast(context, 2, {load(0), with_operand(fn, 1)}, false);
}

/// An operator that says how it broadcasts, before opset 7.
bool broadcasts_at_axis(const KernelSpec& spec) { return spec.opset < 7 && spec.node.i("broadcast", 0) && spec.node.find("axis"); }

std::unique_ptr<Kernel> make_binary(const KernelSpec& spec) {
  const Fn fn = *binary_function(spec.node);
  if (broadcasts_at_axis(spec)) return make_cuda_kernel([fn, axis = spec.node.i("axis", 0)](CudaContext& context) { run_at_axis(context, fn, axis); }, "one pass over the elements");
  return make_cuda_kernel([fn](CudaContext& context) { run_binary(context, fn); }, "one pass over the elements");
}

/// Before opset 7 a slope for each channel lies at axis 1.
std::unique_ptr<Kernel> make_old_prelu(const KernelSpec&) {
  return make_cuda_kernel(
      [](CudaContext& context) {
        const bool by_channel = context.in(1).size() > 1 && context.in(1).rank() == 1 && context.in(0).rank() > 1;
        if (by_channel) run_at_axis(context, Fn::PRelu, 1);
        else run_binary(context, Fn::PRelu);
      },
      "one pass over the elements");
}

/// Operands folded from the left, then divided by their number where `mean`. More than one kernel takes go by way of the wider type.
void fold(CudaContext& context, Fn fn, bool mean) {
  const size_t count = context.inputs();
  Layout layout;
  const DType dtype = context.in_any(0, layout).dtype();
  if (count == 1) {
    const Tensor only = context.in_any(0, layout);
    return context.set(0, only, layout);
  }
  if (mean && !is_float(dtype)) refuse_type(dtype);
  require_number(dtype);
  Operands all = collect_operands(context.base(), count);
  for (const Operand& o : all.list)
    if (o.dtype != dtype)
      throw Error(ErrorKind::Malformed, "the operands' types differ: " + std::string(name_of(dtype)) + " and " + std::string(name_of(o.dtype)));
  const DType wide = is_16_bit_float(dtype) ? DType::F32 : dtype;
  const Compute compute = compute_for(dtype);
  std::vector<Tensor> parts;
  std::vector<Step> steps;
  size_t done = 0;
  for (std::vector<Operand> part;; part = {operand_of(parts.back())}) {
    Shape shape = part.empty() ? all.list[0].shape : part[0].shape;
    while (done < count && part.size() < kMostOperands) shape = broadcast_shape(shape, all.list[done].shape), part.push_back(all.list[done++]);
    steps = {load(0)};
    for (size_t i = 1; i < part.size(); ++i) steps.push_back(with_operand(fn, static_cast<uint8_t>(i)));
    if (done == count) {
      if (mean) steps.push_back(with_number(Fn::Div, static_cast<float>(count)));
      Tensor& y = context.out(0, dtype, all.shape, all.layout);
      return run_elements(context.stream(), compute, steps, part, all.physical, dtype, y.mutable_raw());
    }
    parts.push_back(context.scratch(wide, shape));
    run_elements(context.stream(), compute, steps, part, shape, wide, parts.back().mutable_raw());
  }
}

std::unique_ptr<Kernel> make_folded(const KernelSpec& spec) {
  const bool mean = spec.node.op == "Mean";
  const Fn fn = mean ? Fn::Add : *binary_function(spec.node);
  return make_cuda_kernel([fn, mean](CudaContext& context) { fold(context, fn, mean); }, "one pass over the elements");
}

/// The result has the base's type. Integers to a float power go by way of double.
void run_pow(CudaContext& context, Fn simple) {
  Layout layout;
  const DType dtype = context.in_any(0, layout).dtype(), exponent = context.in_any(1, layout).dtype();
  require_number(dtype);
  require_number(exponent);
  const bool small_float = dtype == DType::F32 || is_16_bit_float(dtype);
  if (simple != Fn::Pow && small_float && context.in_any(1, layout).rank() <= context.in_any(0, layout).rank())
    return map_input(context, Compute::Float, {load(0), {.fn = simple}}, dtype);
  const Operands all = collect_operands(context.base(), 2);
  const bool by_double = is_integer(dtype) && is_float(exponent);
  const Compute compute = dtype == exponent ? compute_for(dtype) : by_double || dtype == DType::F64 ? Compute::Double : is_integer(dtype) ? Compute::Integer : Compute::Float;
  Tensor& y = context.out(0, dtype, all.shape, all.layout);
  run_elements(context.stream(), compute, {load(0), with_operand(Fn::Pow, 1)}, all.list, all.physical, dtype, y.mutable_raw());
}

std::unique_ptr<Kernel> make_pow(const KernelSpec& spec) {
  if (broadcasts_at_axis(spec)) return make_binary(spec);
  Fn simple = Fn::Pow;
  if (const Tensor* t = spec.constant(1); t && t->size() == 1) {
    const double exponent = to_scalar<double>(*t);
    simple = exponent == 2 ? Fn::Square : exponent == 3 ? Fn::Cube : exponent == 0.5 ? Fn::Root : Fn::Pow;
  }
  return make_cuda_kernel([simple](CudaContext& context) { run_pow(context, simple); }, "one pass over the elements");
}

}  // namespace

std::vector<CudaOp> cuda_arithmetic() {
  std::vector<CudaOp> ops;
  for (const char* name : {"Add", "Sub", "Mul", "Div"}) ops.push_back({.name = name, .since = 6, .make = &make_binary});
  for (const char* name : {"Sum", "Mean", "Min", "Max"}) ops.push_back({.name = name, .since = 6, .make = &make_folded});
  ops.push_back({.name = "Mod", .make = &make_binary});
  ops.push_back({.name = "Pow", .since = 6, .make = &make_pow});
  ops.push_back({.name = "PRelu", .since = 7, .make = &make_binary});
  ops.push_back({.name = "PRelu", .until = 6, .make = &make_old_prelu});
  return ops;
}

}  // namespace infopt::cuda
