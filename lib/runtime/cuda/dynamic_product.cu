// Products of codes whose scale and zero point the run computes, on the device all the while.
#include "lib/base/error.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/int8_gemm.h"

namespace infopt::cuda {
namespace {

class DynamicProductKernel : public CudaKernel {
 public:
  DynamicProductKernel(const DynamicProduct& how, const Int8Weights& weights, SparseUse sparse)
      : k_(weights.channels), n_(weights.columns), has_zero_(how.has_zero), rank_(how.rank), gemm_(weights, {1, 1, 1}, {}, false, sparse), ending_(plain_end(how.scales, how.bias, how.bounds), n_, {}, gemm_.weight_zeros()), zero_factor_(Tensor::vector(gemm_.zero_factor())) {}

  void run_cuda(CudaContext& context) const override {
    const Tensor& x = context.in(0);
    if (x.dtype() != DType::U8 && x.dtype() != DType::I8) throw Error(ErrorKind::Unsupported, "a product of codes of " + std::string(name_of(x.dtype())));
    if (x.rank() < 1 || x.dim(-1) != k_) throw Error(ErrorKind::Malformed, "an input of " + to_string(x.shape()) + " doesn't fit weights of " + std::to_string(k_) + " rows");
    Int8End end = ending_.get(context.run());
    set_run_scale(end, context.in(1));
    if (has_zero_) {
      set_run_zero(end, context.in(2));
      end.run_zero_factor = reinterpret_cast<const int32_t*>(zero_factor_.get(context.run()).raw());
    }
    Shape shape = x.shape();
    shape.back() = n_;
    if (shape.size() < rank_) shape.insert(shape.begin(), rank_ - shape.size(), 1);
    Tensor& y = context.out(0, DType::F32, shape);
    Int8Places rows;
    rows.images = n_ == 0 ? 0 : y.size() / n_;
    gemm_.run(context, x, rows, end, y.mutable_raw());
  }

  std::string describe() const override { return "CUDA int8 product on tensor cores with dynamic activations, to float32" + gemm_.describe_zeros(); }

 private:
  int64_t k_, n_;
  bool has_zero_;
  size_t rank_;
  Int8Gemm gemm_;
  Int8Ending ending_;
  OnDevice zero_factor_;
};

}  // namespace

std::unique_ptr<Kernel> make_dynamic_product(DynamicProduct how, SparseUse sparse) {
  if (how.weights.rank() != 2) return nullptr;
  Int8Weights w;
  w.codes = how.weights;
  w.channels = how.weights.dim(0);
  w.columns = how.weights.dim(1);
  w.column_stride = 1;
  w.channel_stride = w.columns;
  w.zeros = how.zeros;
  return std::make_unique<DynamicProductKernel>(how, w, sparse);
}

}  // namespace infopt::cuda
