// A convolution with its bias, residual and activation.
#include "lib/base/error.h"
#include "lib/ops/broadcast.h"
#include "lib/runtime/cuda/activation.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/float_conv.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/sparse_weights.h"

namespace infopt::cuda {
namespace {

/// y = activation(a + b) over broadcast shapes: places of a and b.
template <class T> __global__ void add_broadcast(const T* a, const T* b, T* y, uint64_t count, Places<uint64_t, 2> places, PostActivation post) {
  const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    int64_t at[2];
    places.of(i, at);
    store_float(y[i], activate(post.kind, post.low, post.high, load_float(a[at[0]]) + load_float(b[at[1]])));
  }
}

class FusedConvKernel : public CudaKernel {
 public:
  FusedConvKernel(FusedConv how, ConvWeights packed, std::unique_ptr<SparseWeights> sparse)
      : how_(std::move(how)), packed_(std::move(packed)), weights_(packed_.packed), bias_(how_.bias), sparse_(std::move(sparse)) {
    how_.weights = packed_.packed = {};
  }

  void run_cuda(CudaContext& context) const override {
    const DType type = weights_.host().dtype();
    const Shape& shape = packed_.shape;
    Layout layout;
    const Tensor& given = context.in_any(0, layout);
    if (given.dtype() != type) throw Error(ErrorKind::Malformed, std::string(name_of(type)) + " weights for " + std::string(name_of(given.dtype())));
    if (given.rank() != static_cast<int64_t>(shape.size()) || given.dim(1) != shape[1] * how_.groups || shape[0] % how_.groups != 0)
      throw Error(ErrorKind::Malformed, "an input of " + to_string(given.shape()) + " doesn't fit weights of " + to_string(shape) + " in " + std::to_string(how_.groups) + " groups");
    const Tensor x = context.run().convert_layout(given, layout, Layout::ChannelsLast);
    const Window w = window_of({x.shape().begin() + 2, x.shape().end()}, {shape.begin() + 2, shape.end()});
    Shape result{x.dim(0), shape[0]};
    result.insert(result.end(), w.out.begin(), w.out.end());
    Finish finish{.post = how_.post};
    if (bias_.defined()) finish.bias = bias_.get(context.run()).raw();
    const void* weights = weights_.get(context.run()).raw();
    const SparseWeights* sparse = sparse_ && sparse_->has_choice() ? sparse_.get() : nullptr;
    if (!how_.residual) return convolve(context.run(), x, packed_, weights, w, context.out(0, type, result, Layout::ChannelsLast), finish, sparse);
    const Tensor& other = context.in_any(1, layout);
    if (other.dtype() != type) throw Error(ErrorKind::Malformed, "a sum of " + std::string(name_of(type)) + " and " + std::string(name_of(other.dtype())));
    if (other.shape() == result) {
      const Tensor residual = context.run().convert_layout(other, layout, Layout::ChannelsLast);
      finish.residual = residual.raw();
      return convolve(context.run(), x, packed_, weights, w, context.out(0, type, result, Layout::ChannelsLast), finish, sparse);
    }
    finish.post = {};
    Tensor first = context.scratch(type, result);
    convolve(context.run(), x, packed_, weights, w, first, finish, sparse);
    first = context.run().convert_layout(first, Layout::ChannelsLast, Layout::Plain);
    add(context, first, context.in(1));
  }

  std::string describe() const override {
    return std::string(name_of(weights_.host().dtype())) + (packed_.depthwise ? " depthwise convolution" : " convolution as a product, cuBLASLt") + ", channels last" + (how_.residual ? ", with the residual" : "") +
           (how_.post.kind != PostActivation::None ? ", with the activation" : "") + (sparse_ ? "; " + sparse_->describe() : "");
  }

 private:
  Window window_of(Shape spatial, const Shape& kernel) const {
    const size_t n = spatial.size();
    if (how_.extra.empty()) return resolve_window(how_.window, spatial, kernel);
    for (size_t i = 0; i < n; ++i) spatial[i] += how_.extra[i] + how_.extra[n + i];
    Window w = resolve_window(how_.window, spatial, kernel);
    for (size_t i = 0; i < n; ++i) w.pads_begin[i] += how_.extra[i], w.pads_end[i] += how_.extra[n + i];
    return w;
  }

  /// The sum of shapes that broadcast, and the activation.
  void add(CudaContext& context, const Tensor& a, const Tensor& b) const {
    const Shape result = broadcast_shape(a.shape(), b.shape());
    Tensor& y = context.out(0, a.dtype(), result);
    if (y.size() == 0) return;
    const Loops loops = plan_loops(result, {a.shape(), b.shape()});
    const auto places = places_of<uint64_t, 2>(loops.sizes, loops.strides);
    const auto run = [&](auto type) {
      using T = decltype(type);
      INFOPT_LAUNCH(context.stream(), add_broadcast<T>, grid_for(y.size(), 256), 256, 0, a.data<T>(), b.data<T>(), y.mutable_data<T>(), static_cast<uint64_t>(y.size()), places, how_.post);
    };
    if (a.dtype() == DType::F32) run(float{});
    else if (a.dtype() == DType::F16) run(half{});
    else run(bfloat16{});
  }

  FusedConv how_;
  ConvWeights packed_;
  OnDevice weights_, bias_;
  std::unique_ptr<SparseWeights> sparse_;  ///< null: nothing to choose, nothing to say
};

}  // namespace

std::unique_ptr<Kernel> make_fused_conv(FusedConv how, SparseUse use) {
  if (how.groups < 1 || how.weights.rank() < 3) return nullptr;
  const int64_t m = how.weights.dim(0), each = m == 0 ? 0 : how.weights.size() / m;
  if (how.alone && (use == SparseUse::Never || how.groups > 1 || !many_zeros({how.weights, m, each, each, 1}))) return nullptr;
  ConvWeights packed = pack_conv_weights(how.weights, how.groups);
  std::unique_ptr<SparseWeights> sparse;
  if (how.groups == 1) sparse = std::make_unique<SparseWeights>(WeightMatrix{packed.packed, packed.shape[0], packed.columns, packed.columns, 1}, use);
  if (sparse && !sparse->worth_saying()) sparse = nullptr;
  if (how.alone && !sparse) return nullptr;
  return std::make_unique<FusedConvKernel>(std::move(how), std::move(packed), std::move(sparse));
}

}  // namespace infopt::cuda
