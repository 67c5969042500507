// Products of codes with constant weights.
#include <optional>

#include "lib/base/error.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/int8_gemm.h"

namespace infopt::cuda {
namespace {

class IntegerProductKernel : public CudaKernel {
 public:
  IntegerProductKernel(const IntegerProduct& how, const Int8Weights& weights, SparseUse sparse)
      : input_(how.input), k_(weights.channels), n_(weights.columns), matrix_(how.matrix), gemm_(weights, {1, 1, 1}, how.input, true, sparse), ending_(how.end, n_, gemm_.shift(), gemm_.weight_zeros()) {}

  void run_cuda(CudaContext& context) const override {
    const Tensor& x = context.in(0);
    if (x.dtype() != input_.dtype) throw Error(ErrorKind::Malformed, "codes and zero point of different types");
    if (x.rank() < 1 || (matrix_ && x.rank() != 2) || x.dim(-1) != k_) throw Error(ErrorKind::Malformed, "an input of " + to_string(x.shape()) + " doesn't fit weights of " + std::to_string(k_) + " rows");
    Shape shape = x.shape();
    shape.back() = n_;
    Int8End end = ending_.get(context.run());
    if (end.residual) throw Error(ErrorKind::Unsupported, "a product of codes with a residual");
    Tensor& y = context.out(0, ending_.output(), shape);
    Int8Places rows;
    rows.images = n_ == 0 ? 0 : y.size() / n_;
    gemm_.run(context, x, rows, end, y.mutable_raw());
  }

  std::string describe() const override { return "CUDA int8 product on tensor cores, to " + std::string(name_of(ending_.output())) + gemm_.describe_zeros(); }

 private:
  CodeStep input_;
  int64_t k_, n_;
  bool matrix_;
  Int8Gemm gemm_;
  Int8Ending ending_;
};

}  // namespace

std::unique_ptr<Kernel> make_integer_product(IntegerProduct how, SparseUse sparse) {
  if (how.weights.rank() != 2) return nullptr;
  Int8Weights w;
  w.codes = how.weights;
  w.channels = how.weights.dim(how.transposed ? 1 : 0);
  w.columns = how.weights.dim(how.transposed ? 0 : 1);
  w.column_stride = how.transposed ? w.channels : 1;
  w.channel_stride = how.transposed ? 1 : w.columns;
  w.zeros = how.zeros;
  return std::make_unique<IntegerProductKernel>(how, w, sparse);
}

}  // namespace infopt::cuda
