// Products of float8 codes by cuBLASLt, with what it doesn't do behind them: scales of single columns, and a bias in float32.
#include <algorithm>

#include "lib/base/error.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/libraries.h"

namespace infopt::cuda {
namespace {

template <class T> __global__ void finish_columns(T* y, int64_t count, int64_t n, const float* scales, const T* bias) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const int64_t column = i % n;
    float v = load_float(y[i]);
    if (scales) v = v * scales[column];
    if (bias) v = v + load_float(bias[column]);
    store_float(y[i], v);
  }
}

template <class T> void finish(Stream& stream, Tensor& y, int64_t n, const float* scales, const void* bias) {
  INFOPT_LAUNCH(stream, finish_columns<T>, {std::min<int64_t>(blocks_for(y.size(), 256), 1 << 16)}, {256}, 0, reinterpret_cast<T*>(y.mutable_raw()), y.size(), n, scales, static_cast<const T*>(bias));
}

/// [n, k] as the library wants it.
Tensor columns_first(const Float8Product& how) {
  if (how.transposed) return how.weights;
  const int64_t k = how.weights.dim(0), n = how.weights.dim(1);
  Tensor out(how.weights.dtype(), {n, k});
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < n; ++j) out.mutable_raw()[j * k + i] = how.weights.raw()[i * n + j];
  return out;
}

class Float8ProductKernel : public CudaKernel {
 public:
  explicit Float8ProductKernel(const Float8Product& how)
      : k_(how.weights.dim(how.transposed ? 1 : 0)), n_(how.weights.dim(how.transposed ? 0 : 1)), scale_(how.scale), type_(how.type), matrix_(how.matrix), weights_(columns_first(how)),
        scales_(how.scales.empty() ? Tensor() : Tensor::vector(how.scales)), bias_(how.bias) {}

  void run_cuda(CudaContext& context) const override {
    const Tensor& x = context.in(0);
    if (x.dtype() != DType::F8E4M3FN) throw Error(ErrorKind::Malformed, "a product of " + std::string(name_of(x.dtype())) + " and float8");
    if (x.rank() < 1 || (matrix_ && x.rank() != 2) || x.dim(-1) != k_) throw Error(ErrorKind::Malformed, "an input of " + to_string(x.shape()) + " doesn't fit weights of " + std::to_string(k_) + " rows");
    Shape shape = x.shape();
    shape.back() = n_;
    Tensor& y = context.out(0, type_, shape);
    if (y.size() == 0) return;
    Tensor copy;
    const void* a = x.raw();
    if (reinterpret_cast<uintptr_t>(a) % 16 != 0) {
      copy = context.scratch(x.dtype(), x.shape());
      context.stream().copy_on_device(copy.mutable_raw(), x.raw(), x.bytes());
      a = copy.raw();
    }
    const void* bias = bias_.defined() ? bias_.get(context.run()).raw() : nullptr;
    const bool later = scales_.defined() || type_ == DType::F32;
    MatrixProduct p{.type = DType::F8E4M3FN, .out = type_, .transpose_b = true, .m = x.size() / k_, .n = n_, .k = k_, .lda = k_, .ldb = k_, .ldc = n_, .alpha = scale_};
    p.bias = bias && !later;
    context.libraries().multiply(context.stream(), p, a, weights_.get(context.run()).raw(), y.mutable_raw(), p.bias ? bias : nullptr);
    if (!later || (!scales_.defined() && !bias)) return;
    const float* scales = scales_.defined() ? reinterpret_cast<const float*>(scales_.get(context.run()).raw()) : nullptr;
    if (type_ == DType::F32) finish<float>(context.stream(), y, n_, scales, bias);
    else if (type_ == DType::F16) finish<half>(context.stream(), y, n_, scales, bias);
    else finish<bfloat16>(context.stream(), y, n_, scales, bias);
  }

  std::string describe() const override { return "float8 product, cuBLASLt, to " + std::string(name_of(type_)) + (bias_.defined() ? ", with the bias" : ""); }

 private:
  int64_t k_, n_;
  float scale_;
  DType type_;
  bool matrix_;
  OnDevice weights_, scales_, bias_;
};

}  // namespace

std::unique_ptr<Kernel> make_float8_product(Float8Product how) {
  const DeviceFacts device = open_device();
  if (device.major * 10 + device.minor < 89) return nullptr;  // no float8 in the tensor cores
  return std::make_unique<Float8ProductKernel>(how);
}

}  // namespace infopt::cuda
