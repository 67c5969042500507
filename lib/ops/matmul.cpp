// MatMul and Gemm: through oneDNN in float32, 16-bit floats too; doubles and integers in their own arithmetic.
#include <algorithm>
#include <limits>
#include <type_traits>

#include "lib/base/error.h"
#include "lib/base/strided.h"
#include "lib/ops/matmul.h"
#include "lib/ops/op.h"
#include "lib/runtime/cpu/dnnl_adapter.h"

namespace infopt {
namespace {

void check_types(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype()) throw Error(ErrorKind::Malformed, "a product of " + std::string(name_of(a.dtype())) + " and " + std::string(name_of(b.dtype())));
}

/// Arithmetic that wraps around, as integers of infopt do.
template <class T, bool integer = std::is_integral_v<T>> struct Arithmetic {
  using Type = T;
};
template <class T> struct Arithmetic<T, true> {
  using Type = std::make_unsigned_t<T>;
};

/// Double products, and integer ones modulo 2^bits.
template <class T> void plain_product(const ProductShapes& o, const T* a, const T* b, T* y) {
  const size_t rank = o.a.size();
  const int64_t m = o.a[rank - 2], k = o.a[rank - 1], n = o.b[rank - 1];
  int64_t batches = 1;
  for (size_t i = 0; i + 2 < rank; ++i) batches *= o.wide[i];
  for (int64_t batch = 0; batch < batches; ++batch) {
    int64_t rest = batch, a_at = 0, b_at = 0, a_step = 1, b_step = 1;
    for (size_t i = rank - 2; i-- > 0;) {
      const int64_t index = rest % o.wide[i];
      rest /= o.wide[i];
      a_at += o.a[i] == 1 ? 0 : index * a_step;
      b_at += o.b[i] == 1 ? 0 : index * b_step;
      a_step *= o.a[i];
      b_step *= o.b[i];
    }
    T* out = y + batch * m * n;
    std::fill(out, out + m * n, T{});
    for (int64_t r = 0; r < m; ++r)
      for (int64_t i = 0; i < k; ++i)
        for (int64_t c = 0; c < n; ++c) {
          using U = typename Arithmetic<T>::Type;
          out[r * n + c] = static_cast<T>(static_cast<U>(out[r * n + c]) + static_cast<U>(a[(a_at * m + r) * k + i]) * static_cast<U>(b[(b_at * k + i) * n + c]));
        }
  }
}

template <class T> T bound_of(float v) {
  if constexpr (std::is_integral_v<T>) {
    if (!(static_cast<double>(v) > static_cast<double>(std::numeric_limits<T>::min()))) return std::numeric_limits<T>::min();
    if (static_cast<double>(v) >= static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  }
  return static_cast<T>(v);
}

/// The bounds, where a product didn't end with them itself.
template <class T> void clip(const PostActivation& post, Tensor& y) {
  if (post.kind != PostActivation::Clip) return;
  T* p = y.mutable_data<T>();
  const T low = bound_of<T>(post.low), high = bound_of<T>(post.high);
  for (int64_t i = 0; i < y.size(); ++i) {
    if (p[i] < low) p[i] = low;
    if (p[i] > high) p[i] = high;
  }
}

/// float32: through oneDNN, which doesn't know sums of nothing.
void multiply(const cpu::Product& product, const PostActivation& post, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, bool packable, const Tensor* bias, Tensor& y) {
  if (a.size() > 0 || y.size() == 0) return product.run(a, transpose_a, b, transpose_b, packable, bias, y);
  std::fill_n(y.mutable_data<float>(), y.size(), 0.0f);
  if (!bias) clip<float>(post, y);
}

class MatMulKernel : public Kernel {
 public:
  explicit MatMulKernel(const KernelSpec& spec) : constant_(spec.constant(1) != nullptr), post_(spec.post), product_(spec.post) {}

  void run(KernelContext& context) const override {
    const Tensor& a = context.in(0);
    const Tensor& b = context.in(1);
    check_types(a, b);
    ProductShapes o = align_product(a.shape(), b.shape());
    flatten_rows(o);
    switch (a.dtype()) {
      case DType::F32: {
        Tensor wide = context.out(0, DType::F32, o.result).reshaped(o.wide);
        return multiply(product_, post_, a.reshaped(o.a), false, b.reshaped(o.b), false, constant_, nullptr, wide);
      }
      case DType::F16: case DType::BF16: {
        Tensor wide(DType::F32, o.wide);
        multiply(product_, post_, cast(a, DType::F32).reshaped(o.a), false, cast(b, DType::F32).reshaped(o.b), false, false, nullptr, wide);
        return context.set(0, cast(wide, a.dtype()).reshaped(o.result));
      }
      case DType::F64: return plain<double>(context, o);
      case DType::I32: return plain<int32_t>(context, o);
      case DType::I64: return plain<int64_t>(context, o);
      case DType::U32: return plain<uint32_t>(context, o);
      case DType::U64: return plain<uint64_t>(context, o);
      default: throw Error(ErrorKind::Unsupported, "a product of " + std::string(name_of(a.dtype())));
    }
  }

  std::string describe() const override { return constant_ ? "float product, oneDNN, weights packed" : "float product, oneDNN"; }

 private:
  template <class T> void plain(KernelContext& context, const ProductShapes& o) const {
    Tensor& y = context.out(0, dtype_of<T>, o.result);
    plain_product(o, context.in(0).data<T>(), context.in(1).data<T>(), y.mutable_data<T>());
    clip<T>(post_, y);
  }

  bool constant_;
  PostActivation post_;
  cpu::Product product_;
};

template <class T> void scale(Tensor& t, float by) {
  if constexpr (std::is_integral_v<T>) {
    Tensor wide = cast(t, DType::F64);
    scale<double>(wide, by);
    t = cast(wide, t.dtype());
  } else {
    T* p = t.mutable_data<T>();
    for (int64_t i = 0; i < t.size(); ++i) p[i] *= static_cast<T>(by);
  }
}

template <class T> void add(Tensor& y, const Tensor& c) {
  using U = typename Arithmetic<T>::Type;
  T* p = y.mutable_data<T>();
  const int64_t n = y.dim(1), row = c.dim(0) == 1 ? 0 : c.dim(1), column = c.dim(1) == 1 ? 0 : 1;
  for (int64_t i = 0; i < y.dim(0); ++i)
    for (int64_t j = 0; j < n; ++j) p[i * n + j] = static_cast<T>(static_cast<U>(p[i * n + j]) + static_cast<U>(c.data<T>()[i * row + j * column]));
}

class GemmKernel : public Kernel {
 public:
  explicit GemmKernel(const KernelSpec& spec)
      : alpha_(spec.node.f("alpha", 1)), beta_(spec.node.f("beta", 1)), transpose_a_(spec.node.i("transA", 0) != 0), transpose_b_(spec.node.i("transB", 0) != 0),
        constant_(spec.constant(1) != nullptr), post_(spec.post), inner_post_(alpha_ == 1 ? spec.post : PostActivation{}), product_(inner_post_) {}

  void run(KernelContext& context) const override {
    switch (context.in(0).dtype()) {
      case DType::F32: case DType::F16: case DType::BF16: return run_float(context);
      case DType::F64: return run_plain<double>(context);
      case DType::I32: return run_plain<int32_t>(context);
      case DType::I64: return run_plain<int64_t>(context);
      case DType::U32: return run_plain<uint32_t>(context);
      case DType::U64: return run_plain<uint64_t>(context);
      default: throw Error(ErrorKind::Unsupported, "a product of " + std::string(name_of(context.in(0).dtype())));
    }
  }

  std::string describe() const override { return constant_ ? "float product, oneDNN, weights packed" : "float product, oneDNN"; }

 private:
  void run_float(KernelContext& context) const {
    const Tensor a = cast(context.in(0), DType::F32), b = cast(context.in(1), DType::F32);
    const Shape shape = check_shapes(a, b);
    const Tensor bias = make_bias<float>(context, shape);
    const bool empty = a.size() == 0, inside = alpha_ == 1 && bias.defined();
    Tensor y(DType::F32, shape);
    multiply(product_, inner_post_, a, transpose_a_, b, transpose_b_, constant_ && context.in(1).dtype() == DType::F32, inside ? &bias : nullptr, y);
    if (alpha_ != 1) scale<float>(y, alpha_);
    if (bias.defined() && (!inside || empty)) add<float>(y, bias);
    if (alpha_ != 1 || empty) clip<float>(post_, y);
    context.set(0, cast(y, context.in(0).dtype()));
  }

  template <class T> void run_plain(KernelContext& context) const {
    const Tensor &a = context.in(0), &b = context.in(1);
    check_types(a, b);
    const Shape shape = check_shapes(a, b);
    const Tensor left = transpose_a_ ? transposed(a) : a, right = transpose_b_ ? transposed(b) : b, bias = make_bias<T>(context, shape);
    Tensor y(dtype_of<T>, shape);
    plain_product({left.shape(), right.shape(), shape, shape}, left.data<T>(), right.data<T>(), y.mutable_data<T>());
    if (alpha_ != 1) scale<T>(y, alpha_);
    if (bias.defined()) add<T>(y, bias);
    clip<T>(post_, y);
    context.set(0, y);
  }

  static Tensor transposed(const Tensor& x) { return gather_strided(x, {x.dim(1), x.dim(0)}, 0, {1, x.dim(1)}); }

  Shape check_shapes(const Tensor& a, const Tensor& b) const {
    if (a.rank() != 2 || b.rank() != 2) throw Error(ErrorKind::Malformed, "Gemm of shapes " + to_string(a.shape()) + " and " + to_string(b.shape()));
    if (a.dim(transpose_a_ ? 0 : 1) != b.dim(transpose_b_ ? 1 : 0))
      throw Error(ErrorKind::Malformed, "shapes " + to_string(a.shape()) + " and " + to_string(b.shape()) + " don't fit for a product");
    return {a.dim(transpose_a_ ? 1 : 0), b.dim(transpose_b_ ? 0 : 1)};
  }

  /// beta × C as (1 or M, 1 or N); undefined where there is none.
  template <class T> Tensor make_bias(KernelContext& context, const Shape& result) const {
    if (!context.has(2) || beta_ == 0) return {};
    Tensor c = cast(context.in(2), dtype_of<T>);
    Shape shape = c.shape();
    if (shape.size() > 2) throw Error(ErrorKind::Malformed, "Gemm's C has shape " + to_string(shape));
    shape.insert(shape.begin(), 2 - shape.size(), 1);
    if ((shape[0] != 1 && shape[0] != result[0]) || (shape[1] != 1 && shape[1] != result[1]))
      throw Error(ErrorKind::Malformed, "Gemm's C has shape " + to_string(shape) + ", the result " + to_string(result));
    c = c.reshaped(shape);
    if (beta_ != 1) {
      c = c.clone();
      scale<T>(c, beta_);
    }
    return c;
  }

  float alpha_, beta_;
  bool transpose_a_, transpose_b_, constant_;
  PostActivation post_, inner_post_;
  cpu::Product product_;
};

}  // namespace

std::vector<OpDef> op_matmul() {
  return {
      {.name = "MatMul", .cpu = [](const KernelSpec& s) -> std::unique_ptr<Kernel> { return std::make_unique<MatMulKernel>(s); }, .fuses_activation = true},
      {.name = "Gemm", .cpu = [](const KernelSpec& s) -> std::unique_ptr<Kernel> { return std::make_unique<GemmKernel>(s); }, .fuses_activation = true},
  };
}

}  // namespace infopt
