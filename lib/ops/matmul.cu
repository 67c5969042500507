// MatMul and Gemm: floats up to 32 bits through cuBLASLt; doubles and integers in their own arithmetic.
#include "lib/ops/matmul.h"

#include <type_traits>

#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/product.h"

namespace infopt::cuda {
namespace {

/// Integers wrap, so they are summed without a sign.
template <class T, bool integer = std::is_integral_v<T>> struct Sums { using Type = T; };
template <class T> struct Sums<T, true> { using Type = std::make_unsigned_t<T>; };

struct PlainProduct {
  int64_t m, n, k;
  int64_t a_row, a_column, b_row, b_column;        ///< elements from one to the next
  int64_t a_batch, b_batch, y_batch;
  const void* c;                                   ///< added, times beta; null: nothing
  int64_t c_row, c_column;
  double alpha, beta;
};

/// v·by as Cast to double and back has it.
template <class T> INFOPT_DEVICE T scaled(T v, double by) { return by == 1 ? v : static_cast<T>(static_cast<double>(v) * by); }

template <class T> __global__ void plain_product(const T* a, const T* b, T* y, PlainProduct p) {
  using U = typename Sums<T>::Type;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= p.n) return;
  a += blockIdx.z * p.a_batch;
  b += blockIdx.z * p.b_batch;
  y += blockIdx.z * p.y_batch;
  for (int64_t row = blockIdx.y; row < p.m; row += gridDim.y) {
    U sum = 0;
    for (int64_t i = 0; i < p.k; ++i) sum = static_cast<U>(sum + static_cast<U>(a[row * p.a_row + i * p.a_column]) * static_cast<U>(b[i * p.b_row + column * p.b_column]));
    T v = scaled(static_cast<T>(sum), p.alpha);
    if (p.c) v = static_cast<T>(static_cast<U>(v) + static_cast<U>(scaled(static_cast<const T*>(p.c)[row * p.c_row + column * p.c_column], p.beta)));
    y[row * p.n + column] = v;
  }
}

template <class T> void run_plain(Stream& stream, PlainProduct p, const LeadingAxes& lead, const Tensor& a, const Tensor& b, Tensor& y) {
  if (y.size() == 0) return;
  for (const Batches& g : regular_batches(lead))
    for (int64_t first = 0; first < g.count; first += 65535) {
      const int64_t count = std::min<int64_t>(65535, g.count - first);
      p.a_batch = g.stride_a * p.m * p.k, p.b_batch = g.stride_b * p.k * p.n, p.y_batch = g.stride_c * p.m * p.n;
      INFOPT_LAUNCH(stream, plain_product<T>, {blocks_for(p.n, 256), std::min<int64_t>(p.m, 65535), count}, 256, 0, a.data<T>() + g.a * p.m * p.k + first * p.a_batch,
                    b.data<T>() + g.b * p.k * p.n + first * p.b_batch, y.mutable_data<T>() + g.c * p.m * p.n + first * p.y_batch, p);
    }
}

void run_plain(Stream& stream, const PlainProduct& p, const LeadingAxes& lead, const Tensor& a, const Tensor& b, Tensor& y) {
  switch (a.dtype()) {
    case DType::F64: return run_plain<double>(stream, p, lead, a, b, y);
    case DType::I32: return run_plain<int32_t>(stream, p, lead, a, b, y);
    case DType::I64: return run_plain<int64_t>(stream, p, lead, a, b, y);
    case DType::U32: return run_plain<uint32_t>(stream, p, lead, a, b, y);
    case DType::U64: return run_plain<uint64_t>(stream, p, lead, a, b, y);
    default: throw Error(ErrorKind::Unsupported, "a product of " + std::string(name_of(a.dtype())));
  }
}

void check_types(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype()) throw Error(ErrorKind::Malformed, "a product of " + std::string(name_of(a.dtype())) + " and " + std::string(name_of(b.dtype())));
}

void run_matmul(CudaContext& context) {
  const Tensor& a = context.in(0);
  const Tensor& b = context.in(1);
  check_types(a, b);
  ProductShapes o = align_product(a.shape(), b.shape());
  flatten_rows(o);
  Tensor& y = context.out(0, a.dtype(), o.result);
  const int64_t m = o.a[o.a.size() - 2], k = o.a.back(), n = o.b.back();
  const LeadingAxes lead{{o.wide.begin(), o.wide.end() - 2}, {o.a.begin(), o.a.end() - 2}, {o.b.begin(), o.b.end() - 2}};
  if (is_float_product(a.dtype())) return multiply_floats(context.run(), {.type = a.dtype(), .m = m, .n = n, .k = k}, lead, a.raw(), b.raw(), y.mutable_raw(), {});
  run_plain(context.stream(), {m, n, k, k, 1, n, 1, 0, 0, 0, nullptr, 0, 0, 1, 1}, lead, a, b, y);
}

class GemmKernel : public CudaKernel {
 public:
  explicit GemmKernel(const Node& node) : alpha_(node.f("alpha", 1)), beta_(node.f("beta", 1)), transpose_a_(node.i("transA", 0) != 0), transpose_b_(node.i("transB", 0) != 0) {}

  void run_cuda(CudaContext& context) const override {
    const Tensor& a = context.in(0);
    const Tensor& b = context.in(1);
    check_types(a, b);
    if (a.rank() != 2 || b.rank() != 2) throw Error(ErrorKind::Malformed, "Gemm of shapes " + to_string(a.shape()) + " and " + to_string(b.shape()));
    if (a.dim(transpose_a_ ? 0 : 1) != b.dim(transpose_b_ ? 1 : 0))
      throw Error(ErrorKind::Malformed, "shapes " + to_string(a.shape()) + " and " + to_string(b.shape()) + " don't fit for a product");
    const int64_t m = a.dim(transpose_a_ ? 1 : 0), k = a.dim(transpose_a_ ? 0 : 1), n = b.dim(transpose_b_ ? 0 : 1);
    Finish finish;
    Tensor c;
    if (context.has(2) && beta_ != 0) {
      c = context.in(2);
      if (c.dtype() != a.dtype()) throw Error(ErrorKind::Malformed, "a sum of " + std::string(name_of(a.dtype())) + " and " + std::string(name_of(c.dtype())));
      Shape shape = c.shape();
      if (shape.size() > 2) throw Error(ErrorKind::Malformed, "Gemm's C has shape " + to_string(shape));
      shape.insert(shape.begin(), 2 - shape.size(), 1);
      if ((shape[0] != 1 && shape[0] != m) || (shape[1] != 1 && shape[1] != n))
        throw Error(ErrorKind::Malformed, "Gemm's C has shape " + to_string(shape) + ", the result " + to_string({m, n}));
      finish.bias = c.raw();
      finish.bias_row = shape[0] == 1 ? 0 : shape[1];
      finish.bias_column = shape[1] == 1 ? 0 : 1;
      finish.bias_scale = beta_;
    }
    Tensor& y = context.out(0, a.dtype(), {m, n});
    if (is_float_product(a.dtype()))
      return multiply_floats(context.run(), {.type = a.dtype(), .transpose_a = transpose_a_, .transpose_b = transpose_b_, .m = m, .n = n, .k = k, .alpha = alpha_}, {}, a.raw(), b.raw(), y.mutable_raw(), finish);
    const PlainProduct p{m, n, k, transpose_a_ ? 1 : k, transpose_a_ ? m : 1, transpose_b_ ? 1 : n, transpose_b_ ? k : 1, 0, 0, 0, finish.bias, finish.bias_row, finish.bias_column,
                         static_cast<double>(alpha_), static_cast<double>(beta_)};
    run_plain(context.stream(), p, {}, a, b, y);
  }

  std::string describe() const override { return "product, cuBLASLt"; }

 private:
  float alpha_, beta_;
  bool transpose_a_, transpose_b_;
};

void check_declared(const KernelSpec& spec) {
  for (DType t : {DType::U8, DType::I8, DType::U16, DType::I16, DType::C64, DType::C128})
    if (spec.graph.value(spec.node.input(0)).type.dtype == t) throw Error(ErrorKind::Unsupported, "a product of " + std::string(name_of(t)));
}

}  // namespace

std::vector<CudaOp> cuda_matmul() {
  return {
      {.name = "MatMul", .make = [](const KernelSpec& s) -> std::unique_ptr<Kernel> {
         check_declared(s);
         return make_cuda_kernel(run_matmul, "product, cuBLASLt");
       }},
      {.name = "Gemm", .make = [](const KernelSpec& s) -> std::unique_ptr<Kernel> {
         check_declared(s);
         return std::make_unique<GemmKernel>(s.node);
       }},
  };
}

}  // namespace infopt::cuda
