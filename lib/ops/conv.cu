// Conv and ConvTranspose of floats up to 32 bits, channels last: as products through cuBLASLt, depthwise ones by a kernel of their own.
#include "lib/ops/conv.h"

#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/float_conv.h"

namespace infopt::cuda {
namespace {

struct ConvOperands {
  Tensor x, bias;
};

/// x channels last, and the bias; all of one type.
ConvOperands read_operands(CudaContext& context, const Shape& weights, DType type) {
  ConvOperands o;
  Layout layout;
  o.x = context.in_any(0, layout);
  if (context.has(2)) o.bias = context.in(2);
  check_conv_ranks(o.x.shape(), weights);
  if (o.x.dtype() != type || (o.bias.defined() && o.bias.dtype() != type))
    throw Error(ErrorKind::Malformed, "a convolution of " + std::string(name_of(o.x.dtype())) + " with weights of " + std::string(name_of(type)));
  o.x = context.run().convert_layout(o.x, layout, Layout::ChannelsLast);
  return o;
}

Finish ending_of(const ConvOperands& o, const PostActivation& post) {
  Finish finish{.post = post};
  if (o.bias.defined()) finish.bias = o.bias.raw();
  return finish;
}

/// The node's attributes and, where they are constant, its weights as the kernels read them.
class ConvKernel : public CudaKernel {
 public:
  explicit ConvKernel(const KernelSpec& spec) : window_(WindowAttributes::of(spec.node)), groups_(spec.node.i("group", 1)), post_(spec.post) {
    const Tensor* weights = spec.constant(1);
    if (!weights || weights->rank() < 3 || groups_ < 1) return;
    packed_ = pack_conv_weights(*weights, groups_);
    constant_ = std::make_unique<OnDevice>(packed_.packed);
    packed_.packed = {};
  }

  void run_cuda(CudaContext& context) const override {
    const Tensor given = constant_ ? Tensor() : context.in(1);
    const DType type = constant_ ? constant_->host().dtype() : given.dtype();
    const Shape& shape = constant_ ? packed_.shape : given.shape();
    const ConvOperands o = read_operands(context, shape, type);
    check_conv_channels(o.x.shape(), shape, o.bias, groups_, shape[1] * groups_, shape[0]);
    const Window w = resolve_window(window_, {o.x.shape().begin() + 2, o.x.shape().end()}, {shape.begin() + 2, shape.end()});
    const ConvWeights fresh = constant_ ? ConvWeights() : pack_conv_weights(context.run(), given, groups_);
    const ConvWeights& weights = constant_ ? packed_ : fresh;
    Shape result{o.x.dim(0), shape[0]};
    result.insert(result.end(), w.out.begin(), w.out.end());
    Tensor& y = context.out(0, type, result, Layout::ChannelsLast);
    convolve(context.run(), o.x, weights, constant_ ? constant_->get(context.run()).raw() : fresh.packed.raw(), w, y, ending_of(o, post_));
  }

  std::string describe() const override { return constant_ && packed_.depthwise ? "depthwise convolution, channels last" : "convolution as a product, cuBLASLt, channels last"; }

 private:
  WindowAttributes window_;
  int64_t groups_;
  PostActivation post_;
  ConvWeights packed_;
  std::unique_ptr<OnDevice> constant_;
};

class ConvTransposeKernel : public CudaKernel {
 public:
  explicit ConvTransposeKernel(const KernelSpec& spec)
      : window_(WindowAttributes::of(spec.node)), extra_(spec.node.ints("output_padding")), wanted_(spec.node.ints("output_shape")), groups_(spec.node.i("group", 1)), post_(spec.post) {
    const Tensor* weights = spec.constant(1);
    if (!weights || weights->rank() < 3) return;
    shape_ = weights->shape();
    constant_ = std::make_unique<OnDevice>(pack_transposed_weights(*weights));
  }

  void run_cuda(CudaContext& context) const override {
    const Tensor given = constant_ ? Tensor() : context.in(1);
    const DType type = constant_ ? constant_->host().dtype() : given.dtype();
    const Shape& shape = constant_ ? shape_ : given.shape();
    const ConvOperands o = read_operands(context, shape, type);
    check_conv_channels(o.x.shape(), shape, o.bias, groups_, shape[0], shape[1] * groups_);
    const Window w = transposed_window(window_, extra_, wanted_, {o.x.shape().begin() + 2, o.x.shape().end()}, {shape.begin() + 2, shape.end()});
    const Tensor fresh = constant_ ? Tensor() : pack_transposed_weights(context.run(), given);
    Shape result{o.x.dim(0), shape[1] * groups_};
    result.insert(result.end(), w.out.begin(), w.out.end());
    Tensor& y = context.out(0, type, result, Layout::ChannelsLast);
    convolve_transposed(context.run(), o.x, shape, constant_ ? constant_->get(context.run()).raw() : fresh.raw(), groups_, w, y, ending_of(o, post_));
  }

  std::string describe() const override { return "transposed convolution as a product, cuBLASLt, channels last"; }

 private:
  WindowAttributes window_;
  std::vector<int64_t> extra_, wanted_;
  int64_t groups_;
  PostActivation post_;
  Shape shape_;
  std::unique_ptr<OnDevice> constant_;
};

void check_declared(const KernelSpec& spec) {
  const DType type = spec.graph.value(spec.node.input(0)).type.dtype;
  if (type != DType::Undefined && type != DType::F32 && type != DType::F16 && type != DType::BF16) throw Error(ErrorKind::Unsupported, "a convolution of " + std::string(name_of(type)));
}

}  // namespace

std::vector<CudaOp> cuda_conv() {
  return {
      {.name = "Conv", .make = [](const KernelSpec& s) -> std::unique_ptr<Kernel> {
         check_declared(s);
         return std::make_unique<ConvKernel>(s);
       }},
      {.name = "ConvTranspose", .make = [](const KernelSpec& s) -> std::unique_ptr<Kernel> {
         check_declared(s);
         return std::make_unique<ConvTransposeKernel>(s);
       }},
  };
}

}  // namespace infopt::cuda
