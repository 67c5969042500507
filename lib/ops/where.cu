// Where on the device. Elements are moved as their bits: floats as floats, the rest as integers.
#include "lib/base/error.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/element_ops.h"

namespace infopt::cuda {
namespace {

DType bits_type(DType dtype) {
  if (dtype == DType::F32 || is_16_bit_float(dtype)) return dtype;
  switch (bits_of(dtype)) {
    case 8: return DType::U8;
    case 16: return DType::U16;
    case 32: return DType::U32;
    case 64: return DType::I64;
    default: refuse_type(dtype);
  }
}

void run(CudaContext& context) {
  Operands all = collect_operands(context.base(), 3);
  const DType condition = all.list[0].dtype, dtype = all.list[1].dtype;
  if (condition != DType::Bool) throw Error(ErrorKind::Malformed, "Where's condition is of " + std::string(name_of(condition)) + ", not bool");
  if (dtype != all.list[2].dtype) throw Error(ErrorKind::Malformed, "Where chooses between " + std::string(name_of(dtype)) + " and " + std::string(name_of(all.list[2].dtype)));
  const DType moved = bits_type(dtype);
  all.list[1].dtype = all.list[2].dtype = moved;
  Tensor& y = context.out(0, dtype, all.shape, all.layout);
  const std::vector<Step> steps{{.fn = Fn::Hold, .from = From::Operand, .index = 0, .keep = 0}, load(1), {.fn = Fn::Select, .from = From::Operand, .index = 2, .third = 0}};
  run_elements(context.stream(), is_float(moved) ? Compute::Float : Compute::Integer, steps, all.list, all.physical, moved, y.mutable_raw());
}

std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  refuse_strings(spec);
  return make_cuda_kernel(&run, "one pass over the elements");
}

}  // namespace

std::vector<CudaOp> cuda_where() { return {{.name = "Where", .since = 9, .make = &make}}; }

}  // namespace infopt::cuda
