// x·W + bias with its activation: one product of the library, which ends with them where it knows how.
#include "lib/base/error.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/product.h"

namespace infopt::cuda {
namespace {

class FusedProductKernel : public CudaKernel {
 public:
  explicit FusedProductKernel(FusedProduct how) : weights_(how.weights), bias_(how.bias), transposed_(how.transposed), matrix_(how.matrix), post_(how.post) {}

  void run_cuda(CudaContext& context) const override {
    const Tensor& x = context.in(0);
    const Tensor& w = weights_.host();
    if (x.dtype() != w.dtype()) throw Error(ErrorKind::Malformed, "a product of " + std::string(name_of(x.dtype())) + " and " + std::string(name_of(w.dtype())));
    const int64_t k = w.dim(transposed_ ? 1 : 0), n = w.dim(transposed_ ? 0 : 1);
    if (x.rank() < 1 || x.dim(-1) != k || (matrix_ && x.rank() != 2)) throw Error(ErrorKind::Malformed, "shapes " + to_string(x.shape()) + " and " + to_string(w.shape()) + " don't fit for a product");
    Shape shape = x.shape();
    shape.back() = n;
    Tensor& y = context.out(0, x.dtype(), shape);
    MatrixProduct p{.type = x.dtype(), .transpose_b = transposed_, .m = x.size() / k, .n = n, .k = k};
    Finish finish{.post = post_};
    if (bias_.defined()) finish.bias = bias_.get(context.run()).raw();
    multiply_floats(context.run(), p, {{}, {}, {}}, x.raw(), weights_.get(context.run()).raw(), y.mutable_raw(), finish);
  }

  std::string describe() const override {
    constexpr const char* kNames[] = {"", ", with bounds", ", with HardSwish", ", with GELU", ", with GELU by tanh", ", with SiLU"};
    return std::string(name_of(weights_.host().dtype())) + " product, cuBLASLt" + (bias_.defined() ? ", with the bias" : "") + kNames[post_.kind];
  }

 private:
  OnDevice weights_, bias_;
  bool transposed_, matrix_;
  PostActivation post_;
};

}  // namespace

std::unique_ptr<Kernel> make_fused_product(FusedProduct how) { return std::make_unique<FusedProductKernel>(std::move(how)); }

}  // namespace infopt::cuda
