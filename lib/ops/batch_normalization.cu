// BatchNormalization on the device, as it is when a model runs: x·scale + offset for each channel, in any layout.
#include "lib/base/error.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/element.h"
#include "lib/runtime/cuda/element_memory.h"
#include "lib/runtime/cuda/launch.h"

namespace infopt::cuda {
namespace {

struct Statistics {
  const void *gain, *bias, *mean, *variance;
  DType gain_type, bias_type, mean_type, variance_type;
};

/// In double, as the CPU does.
__global__ void __launch_bounds__(128) channel_factors(const __grid_constant__ Statistics s, void* scale, void* offset, DType to, int64_t channels, double epsilon) {
  for (int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; c < channels; c += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const double factor = load_one<double>(s.gain_type, s.gain, c) / std::sqrt(load_one<double>(s.variance_type, s.variance, c) + epsilon);
    store_one(to, scale, c, factor);
    store_one(to, offset, c, load_one<double>(s.bias_type, s.bias, c) - load_one<double>(s.mean_type, s.mean, c) * factor);
  }
}

void run(CudaContext& context, double epsilon) {
  Layout layout;
  const Tensor x = context.in_any(0, layout);
  const DType dtype = x.dtype();
  if (dtype != DType::F32 && dtype != DType::F64 && !is_16_bit_float(dtype)) refuse_type(dtype);
  if (x.rank() == 0) throw Error(ErrorKind::Malformed, "BatchNormalization of a scalar");
  const int64_t channels = x.rank() > 1 ? x.dim(1) : 1;
  for (size_t i = 1; i < 5; ++i) {
    const Tensor& t = context.in(i);
    if (t.size() != channels)
      throw Error(ErrorKind::Malformed, "input " + std::to_string(i) + " of BatchNormalization has " + std::to_string(t.size()) + " elements for " + std::to_string(channels) + " channels");
    if (!is_float(t.dtype())) refuse_type(t.dtype());
  }
  const Tensor &gain = context.in(1), &bias = context.in(2), &mean = context.in(3), &variance = context.in(4);
  const DType wide = dtype == DType::F64 ? DType::F64 : DType::F32;
  Tensor scale = context.scratch(wide, {channels}), offset = context.scratch(wide, {channels});
  const Statistics statistics{gain.raw(), bias.raw(), mean.raw(), variance.raw(), gain.dtype(), bias.dtype(), mean.dtype(), variance.dtype()};
  INFOPT_LAUNCH(context.stream(), channel_factors, blocks_for(channels, 128), 128, 0, statistics, scale.mutable_raw(), offset.mutable_raw(), wide, channels, epsilon);
  const int64_t batch = x.dim(0), space = x.size() ? x.size() / (batch * channels) : 0;
  const bool last = layout == Layout::ChannelsLast;
  const Shape lying = last ? Shape{batch, space, channels} : Shape{batch, channels, space}, by_channel = last ? Shape{channels} : Shape{channels, 1};
  Tensor& y = context.out(0, dtype, x.shape(), layout);
  run_elements(context.stream(), compute_for(dtype), {load(0), with_operand(Fn::Mul, 1), with_operand(Fn::Add, 2)},
               {{dtype, x.raw(), lying}, {wide, scale.raw(), by_channel}, {wide, offset.raw(), by_channel}}, lying, dtype, y.mutable_raw());
}

std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  if (spec.opset < 9 && spec.node.i("spatial", 1) == 0) throw Error(ErrorKind::Unsupported, "BatchNormalization with spatial = 0 (statistics for each pixel)");
  if (spec.opset < 7 && spec.node.i("is_test", 0) == 0) throw Error(ErrorKind::Unsupported, "BatchNormalization in training mode, before opset 7");
  if (spec.opset >= 14 && spec.node.i("training_mode", 0) != 0) throw Error(ErrorKind::Unsupported, "no CUDA kernel for BatchNormalization in training mode");
  return make_cuda_kernel([epsilon = static_cast<double>(spec.node.f("epsilon", 1e-5f))](CudaContext& context) { run(context, epsilon); }, "one pass over the elements, in either layout");
}

}  // namespace

std::vector<CudaOp> cuda_batch_normalization() { return {{.name = "BatchNormalization", .since = 6, .make = &make}}; }

}  // namespace infopt::cuda
