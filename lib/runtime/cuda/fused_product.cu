// x·W + bias with its activation: one product of the library, which ends with them where it knows how.
#include "lib/base/error.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/product.h"
#include "lib/runtime/cuda/sparse_weights.h"

namespace infopt::cuda {
namespace {

class FusedProductKernel : public CudaKernel {
 public:
  FusedProductKernel(const FusedProduct& how, std::unique_ptr<SparseWeights> sparse)
      : weights_(how.weights), bias_(how.bias), transposed_(how.transposed), matrix_(how.matrix), post_(how.post), sparse_(std::move(sparse)) {}

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
    const auto dense = [&] { multiply_floats(context.run(), p, {{}, {}, {}}, x.raw(), weights_.get(context.run()).raw(), y.mutable_raw(), finish); };
    if (!sparse_ || !sparse_->has_choice()) return dense();
    p.lda = k;
    sparse_->multiply(context.run(), p, x.raw(), y.mutable_raw(), finish, dense);
  }

  std::string describe() const override {
    constexpr const char* kNames[] = {"", ", with bounds", ", with HardSwish", ", with GELU", ", with GELU by tanh", ", with SiLU"};
    return std::string(name_of(weights_.host().dtype())) + " product, cuBLASLt" + (bias_.defined() ? ", with the bias" : "") + kNames[post_.kind] + (sparse_ ? "; " + sparse_->describe() : "");
  }

 private:
  OnDevice weights_, bias_;
  bool transposed_, matrix_;
  PostActivation post_;
  std::unique_ptr<SparseWeights> sparse_;  ///< null: nothing to choose, nothing to say
};

}  // namespace

std::unique_ptr<Kernel> make_fused_product(FusedProduct how, SparseUse use) {
  const int64_t k = how.weights.dim(how.transposed ? 1 : 0), n = how.weights.dim(how.transposed ? 0 : 1);
  auto sparse = std::make_unique<SparseWeights>(WeightMatrix{how.weights, n, k, how.transposed ? k : 1, how.transposed ? 1 : n}, use);
  if (!sparse->worth_saying()) sparse = nullptr;
  if (how.alone && !sparse) return nullptr;
  return std::make_unique<FusedProductKernel>(how, std::move(sparse));
}

}  // namespace infopt::cuda
