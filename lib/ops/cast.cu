// Cast and CastLike on the device.
#include "lib/base/error.h"
#include "lib/ops/small_floats.h"
#include "lib/runtime/cuda/element_ops.h"

namespace infopt::cuda {
namespace {

StoreOptions options_of(const KernelSpec& spec) {
  const std::string rounding = spec.node.s("round_mode", "up");
  return {.saturate = spec.node.i("saturate", 1) != 0, .rounding = static_cast<uint8_t>(rounding == "down" ? ScaleRounding::Down : rounding == "nearest" ? ScaleRounding::Nearest : ScaleRounding::Up)};
}

void run(CudaContext& context, DType to, const StoreOptions& options) {
  Layout layout;
  const Tensor& x = context.in_any(0, layout);
  if (x.dtype() == to) {
    const Tensor same = x;
    return context.set(0, same, layout);
  }
  map_input(context, compute_for(x.dtype()), {load(0)}, to, options);
}

std::unique_ptr<Kernel> make_cast(const KernelSpec& spec) {
  refuse_strings(spec);
  const int64_t to = spec.node.i("to", 0);
  if (to <= 0 || to >= kDTypeCount) throw Error(ErrorKind::Unsupported, "the element type " + std::to_string(to) + " is unknown");
  const DType dtype = static_cast<DType>(to);
  if (dtype == DType::String) throw Error(ErrorKind::Unsupported, "no CUDA kernel of strings");
  return make_cuda_kernel([dtype, options = options_of(spec)](CudaContext& context) { run(context, dtype, options); }, "one pass over the elements");
}

std::unique_ptr<Kernel> make_cast_like(const KernelSpec& spec) {
  refuse_strings(spec);
  return make_cuda_kernel(
      [options = options_of(spec)](CudaContext& context) {
        Layout ignored;
        run(context, context.in_any(1, ignored).dtype(), options);
      },
      "one pass over the elements");
}

}  // namespace

std::vector<CudaOp> cuda_cast() {
  return {{.name = "Cast", .since = 6, .make = &make_cast}, {.name = "CastLike", .make = &make_cast_like}};
}

}  // namespace infopt::cuda
