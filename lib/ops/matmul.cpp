// MatMul and Gemm, through oneDNN in float32.
#include <algorithm>

#include "lib/base/error.h"
#include "lib/ops/op.h"
#include "lib/runtime/cpu/dnnl_adapter.h"

namespace infopt {
namespace {

/// A and B brought to one rank with the leading axes of both, and the result's shape in that rank and as ONNX wants it.
struct Operands {
  Shape a, b, wide, result;
};

Operands align(const Shape& a_given, const Shape& b_given) {
  Operands o{a_given, b_given, {}, {}};
  if (o.a.empty() || o.b.empty()) throw Error(ErrorKind::Malformed, "a product of scalars");
  const bool vector_a = o.a.size() == 1, vector_b = o.b.size() == 1;
  if (vector_a) o.a.insert(o.a.begin(), 1);
  if (vector_b) o.b.push_back(1);
  const size_t rank = std::max(o.a.size(), o.b.size());
  o.a.insert(o.a.begin(), rank - o.a.size(), 1);
  o.b.insert(o.b.begin(), rank - o.b.size(), 1);
  bool fits = o.a[rank - 1] == o.b[rank - 2];
  for (size_t i = 0; i + 2 < rank; ++i) {
    fits = fits && (o.a[i] == o.b[i] || o.a[i] == 1 || o.b[i] == 1);
    o.wide.push_back(o.a[i] == 1 ? o.b[i] : o.a[i]);
  }
  if (!fits) throw Error(ErrorKind::Malformed, "shapes " + to_string(a_given) + " and " + to_string(b_given) + " don't fit for a product");
  o.wide.insert(o.wide.end(), {o.a[rank - 2], o.b[rank - 1]});
  o.result = o.wide;
  if (vector_b) o.result.pop_back();
  if (vector_a) o.result.erase(o.result.end() - (vector_b ? 1 : 2));
  return o;
}

/// Leading axes of A join its rows where B is one matrix: a two-dimensional product, with B packed once.
void flatten_rows(Operands& o) {
  int64_t rows = 1, others = 1;
  for (size_t i = 0; i + 1 < o.a.size(); ++i) rows *= o.a[i];
  for (size_t i = 0; i + 2 < o.b.size(); ++i) others *= o.b[i];
  if (others != 1) return;
  o.a = {rows, o.a.back()};
  o.b = {o.b[o.b.size() - 2], o.b.back()};
  o.wide = {rows, o.b[1]};
}

/// Exact integer and double products, in the element's own arithmetic.
template <class T> void plain_product(const Operands& o, const T* a, const T* b, T* y) {
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
        for (int64_t c = 0; c < n; ++c) out[r * n + c] += a[(a_at * m + r) * k + i] * b[(b_at * k + i) * n + c];
  }
}

class MatMulKernel : public Kernel {
 public:
  explicit MatMulKernel(const KernelSpec& spec) : constant_(spec.constant(1) != nullptr), product_(spec.post) {}

  void run(KernelContext& context) const override {
    const Tensor& a = context.in(0);
    const Tensor& b = context.in(1);
    Operands o = align(a.shape(), b.shape());
    flatten_rows(o);
    switch (a.dtype()) {
      case DType::F32: {
        Tensor wide = context.out(0, DType::F32, o.result).reshaped(o.wide);
        if (o.a.back() == 0) std::fill_n(wide.mutable_data<float>(), wide.size(), 0.0f);
        else product_.run(a.reshaped(o.a), false, b.reshaped(o.b), false, constant_, nullptr, wide);
        return;
      }
      case DType::F16: case DType::BF16: {
        Tensor wide(DType::F32, o.wide);
        product_.run(cast(a, DType::F32).reshaped(o.a), false, cast(b, DType::F32).reshaped(o.b), false, false, nullptr, wide);
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
  template <class T> static void plain(KernelContext& context, const Operands& o) {
    Tensor& y = context.out(0, dtype_of<T>, o.result);
    plain_product(o, context.in(0).data<T>(), context.in(1).data<T>(), y.mutable_data<T>());
  }

  bool constant_;
  cpu::Product product_;
};

void scale(Tensor& t, float by) {
  float* p = t.mutable_data<float>();
  for (int64_t i = 0; i < t.size(); ++i) p[i] *= by;
}

class GemmKernel : public Kernel {
 public:
  explicit GemmKernel(const KernelSpec& spec)
      : alpha_(spec.node.f("alpha", 1)), beta_(spec.node.f("beta", 1)), transpose_a_(spec.node.i("transA", 0) != 0), transpose_b_(spec.node.i("transB", 0) != 0),
        constant_(spec.constant(1) != nullptr), clip_(spec.post), product_(alpha_ == 1 ? spec.post : PostActivation{}) {}

  void run(KernelContext& context) const override {
    const Tensor a = float_input(context, 0), b = float_input(context, 1);
    if (a.rank() != 2 || b.rank() != 2) throw Error(ErrorKind::Malformed, "Gemm of shapes " + to_string(a.shape()) + " and " + to_string(b.shape()));
    const int64_t m = a.dim(transpose_a_ ? 1 : 0), k = a.dim(transpose_a_ ? 0 : 1), n = b.dim(transpose_b_ ? 0 : 1);
    if (b.dim(transpose_b_ ? 1 : 0) != k) throw Error(ErrorKind::Malformed, "shapes " + to_string(a.shape()) + " and " + to_string(b.shape()) + " don't fit for a product");
    const Tensor bias = make_bias(context, m, n);
    const bool inside = alpha_ == 1 && bias.defined();
    Tensor y(DType::F32, {m, n});
    if (k == 0) std::fill_n(y.mutable_data<float>(), y.size(), 0.0f);
    else product_.run(a, transpose_a_, b, transpose_b_, constant_ && context.in(1).dtype() == DType::F32, inside ? &bias : nullptr, y);
    if (alpha_ != 1) scale(y, alpha_);
    if (bias.defined() && (!inside || k == 0)) add(y, bias);
    if (alpha_ != 1 && clip_.kind == PostActivation::Clip) {
      float* p = y.mutable_data<float>();
      for (int64_t i = 0; i < y.size(); ++i) p[i] = std::min(std::max(p[i], clip_.low), clip_.high);
    }
    context.set(0, cast(y, context.in(0).dtype()));
  }

  std::string describe() const override { return constant_ ? "float product, oneDNN, weights packed" : "float product, oneDNN"; }

 private:
  static Tensor float_input(KernelContext& context, size_t i) {
    const Tensor& t = context.in(i);
    return cast(t, DType::F32);
  }

  /// beta × C as (1 or M, 1 or N); undefined where there is none.
  Tensor make_bias(KernelContext& context, int64_t m, int64_t n) const {
    if (!context.has(2) || beta_ == 0) return {};
    Tensor c = float_input(context, 2);
    Shape shape = c.shape();
    if (shape.size() > 2) throw Error(ErrorKind::Malformed, "Gemm's C has shape " + to_string(shape));
    shape.insert(shape.begin(), 2 - shape.size(), 1);
    if ((shape[0] != 1 && shape[0] != m) || (shape[1] != 1 && shape[1] != n)) throw Error(ErrorKind::Malformed, "Gemm's C has shape " + to_string(shape) + ", the result " + to_string({m, n}));
    c = c.reshaped(shape);
    if (beta_ != 1) {
      c = c.clone();
      scale(c, beta_);
    }
    return c;
  }

  static void add(Tensor& y, const Tensor& c) {
    float* p = y.mutable_data<float>();
    const int64_t n = y.dim(1), row = c.dim(0) == 1 ? 0 : c.dim(1), column = c.dim(1) == 1 ? 0 : 1;
    for (int64_t i = 0; i < y.dim(0); ++i)
      for (int64_t j = 0; j < n; ++j) p[i * n + j] += c.data<float>()[i * row + j * column];
  }

  float alpha_, beta_;
  bool transpose_a_, transpose_b_, constant_;
  PostActivation clip_;
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
