// ReduceSum, ReduceMean, ReduceMax… on the device.
#include "lib/ops/reduce.h"

#include "lib/runtime/cuda/reduction.h"

namespace infopt::cuda {
namespace {

void run(CudaContext& context, const ReduceOptions& options) {
  Layout layout;
  const Tensor* input = &context.in_any(0, layout);
  const std::vector<bool> reduce = reduced_axes(context.base(), options, input->rank());
  Shape lying = input->shape();
  std::vector<bool> reduce_lying = reduce;
  if (layout == Layout::ChannelsLast && over_space(reduce)) {
    std::rotate(lying.begin() + 1, lying.begin() + 2, lying.end());
    std::rotate(reduce_lying.begin() + 1, reduce_lying.begin() + 2, reduce_lying.end());
  } else if (layout != Layout::Plain) {
    input = &context.in(0);
  }
  const DType dtype = input->dtype();
  Tensor& y = context.out(0, dtype, reduced_shape(input->shape(), reduce, options.keep_dims));
  run_reduction(context.run(), options.kind, dtype, input->raw(), reduce_view(lying, reduce_lying), dtype, y.mutable_raw());
}

template <ReduceKind kind> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  return make_cuda_kernel([options = reduce_options(spec, kind)](CudaContext& context) { run(context, options); }, "reduction in a fixed order");
}

}  // namespace

std::vector<CudaOp> cuda_reduce() {
  return {{.name = "ReduceSum", .make = &make<ReduceKind::Sum>},       {.name = "ReduceMean", .make = &make<ReduceKind::Mean>},
          {.name = "ReduceMax", .make = &make<ReduceKind::Max>},       {.name = "ReduceMin", .make = &make<ReduceKind::Min>},
          {.name = "ReduceProd", .make = &make<ReduceKind::Prod>},     {.name = "ReduceL1", .make = &make<ReduceKind::L1>},
          {.name = "ReduceL2", .make = &make<ReduceKind::L2>},         {.name = "ReduceSumSquare", .make = &make<ReduceKind::SumSquare>},
          {.name = "ReduceLogSum", .make = &make<ReduceKind::LogSum>}, {.name = "ReduceLogSumExp", .make = &make<ReduceKind::LogSumExp>}};
}

}  // namespace infopt::cuda
