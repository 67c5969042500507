// The seam to the libraries: what a product gives, by the emulation's stand-in, and the limits that it holds callers to.
#include <cmath>

#include "lib/runtime/cuda/libraries.h"
#include "tests/cuda/harness.h"

namespace infopt::test {
namespace {

using cuda::Libraries;
using cuda::MatrixProduct;
using cuda::Stream;

class Products : public testing::Test {
 protected:
  Products() : run_(cuda_device()->begin()), libraries_(Libraries::open({}, false)) {}

  Tensor random(Random& r, DType type, int64_t count) {
    std::vector<float> v(static_cast<size_t>(count));
    for (float& x : v) x = static_cast<float>(r.in(-127, 127)) / (type == DType::I8 || type == DType::I32 ? 1.0f : 64.0f);
    return run_->to_device(cast(Tensor::vector(v), type));
  }
  std::vector<double> values(const Tensor& device) { return to_vector<double>(run_->to_host(device)); }

  /// The definition, in double.
  std::vector<double> reference(const MatrixProduct& p, const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& bias) {
    const auto av = values(a), bv = values(b), biases = p.bias ? values(bias) : std::vector<double>{};
    auto cv = values(c);
    for (int64_t i = 0; i < p.batch; ++i)
      for (int64_t r = 0; r < p.m; ++r)
        for (int64_t j = 0; j < p.n; ++j) {
          double sum = 0;
          for (int64_t q = 0; q < p.k; ++q)
            sum += av[static_cast<size_t>(i * p.stride_a + (p.transpose_a ? q * p.lda + r : r * p.lda + q))] * bv[static_cast<size_t>(i * p.stride_b + (p.transpose_b ? j * p.ldb + q : q * p.ldb + j))];
          double& out = cv[static_cast<size_t>(i * p.stride_c + r * p.ldc + j)];
          double v = static_cast<double>(p.alpha) * sum + (p.beta != 0 ? static_cast<double>(p.beta) * out : 0) + (p.bias ? biases[static_cast<size_t>(j)] : 0);
          if (p.activation == MatrixProduct::Relu) v = std::max(v, 0.0);
          if (p.activation == MatrixProduct::Gelu) v = 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
          out = v;
        }
    return cv;
  }

  void expect_product(Random& r, MatrixProduct p) {
    SCOPED_TRACE(testing::Message() << name_of(p.type) << " " << p.m << "x" << p.k << "x" << p.n << " batch " << p.batch);
    const auto size = [&](int64_t rows, int64_t columns, int64_t ld, int64_t stride) { return (p.batch - 1) * stride + (rows - 1) * ld + columns; };
    const Tensor a = random(r, p.type, p.transpose_a ? size(p.k, p.m, p.lda, p.stride_a) : size(p.m, p.k, p.lda, p.stride_a));
    const Tensor b = random(r, p.type, p.transpose_b ? size(p.n, p.k, p.ldb, p.stride_b) : size(p.k, p.n, p.ldb, p.stride_b));
    Tensor c = random(r, p.out, size(p.m, p.n, p.ldc, p.stride_c));
    const Tensor bias = random(r, p.out, p.n);
    const auto want = reference(p, a, b, c, bias);
    const Tensor added = run_->to_device(run_->to_host(c));
    const bool apart = r.chance(2) && p.beta != 0;
    if (apart && p.ldc == p.n && (p.batch == 1 || p.stride_c == p.m * p.n)) c = run_->make(p.out, c.shape());
    Stream stream;
    libraries_->multiply(stream, p, a.raw(), b.raw(), c.mutable_raw(), p.bias ? bias.raw() : nullptr, apart ? added.raw() : nullptr);
    stream.wait();
    const auto got = values(c);
    double largest = 1;
    for (double v : want) largest = std::max(largest, std::fabs(v));
    const double unit = p.out == DType::I32 ? 0 : p.out == DType::F32 ? 1e-6 : p.out == DType::F16 ? 1e-3 : 8e-3;
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], unit * largest) << i;
  }

  std::unique_ptr<DeviceRun> run_;
  std::unique_ptr<Libraries> libraries_;
};

TEST_F(Products, AreWhatTheyAreDefinedToBe) {
  Random r(3);
  for (int i = 0; i < 60; ++i) {
    MatrixProduct p;
    p.type = r.pick({DType::F32, DType::F16, DType::BF16, DType::I8, DType::F8E4M3FN});
    const bool bytes = p.type == DType::I8 || p.type == DType::F8E4M3FN;
    p.out = p.type == DType::I8 ? DType::I32 : p.type == DType::F8E4M3FN ? r.pick({DType::F32, DType::F16, DType::BF16}) : r.pick({p.type, DType::F32});
    const int64_t step = bytes ? 16 : 1;
    p.m = r.in(1, 20), p.n = r.in(1, bytes ? 3 : 40) * step, p.k = r.in(1, bytes ? 3 : 40) * step;
    p.transpose_a = !bytes && r.chance(3);
    p.transpose_b = bytes || r.chance(2);
    p.lda = (p.transpose_a ? p.m : p.k) + r.in(0, 2) * step;
    p.ldb = (p.transpose_b ? p.k : p.n) + r.in(0, 2) * step;
    p.ldc = p.n + r.in(0, 2) * step;
    p.batch = r.in(1, 3);
    p.stride_a = r.chance(3) ? 0 : p.lda * (p.transpose_a ? p.k : p.m);
    p.stride_b = r.chance(3) ? 0 : p.ldb * (p.transpose_b ? p.n : p.k);
    p.stride_c = p.ldc * p.m;
    p.beta = r.chance(3) ? 1 : 0;
    if (p.type != DType::I8) {
      p.alpha = r.pick<float>({1, 0.5f, -2});
      p.bias = r.chance(2) && !(bytes && p.out == DType::F32);
      p.activation = r.pick({MatrixProduct::None, MatrixProduct::Relu, MatrixProduct::Gelu});
    }
    expect_product(r, p);
    if (HasFatalFailure()) return;
  }
}

TEST_F(Products, OfIntegersByTheKernelForFewRowsAreTheSame) {
  Random r(4);
  for (int i = 0; i < 20; ++i) {
    MatrixProduct p{.type = DType::I8, .out = DType::I32, .transpose_b = true, .m = r.in(1, 20), .n = 16 * r.in(1, 3), .k = 16 * r.in(1, 70)};
    p.lda = p.ldb = p.k, p.ldc = p.n + 16;
    p.batch = r.in(1, 2);
    p.stride_a = p.m * p.lda, p.stride_b = p.n * p.ldb, p.stride_c = p.m * p.ldc;
    p.beta = r.chance(2) ? 1 : 0;
    const Tensor a = random(r, DType::I8, p.batch * p.stride_a), b = random(r, DType::I8, p.batch * p.stride_b);
    Tensor c = random(r, DType::I32, p.batch * p.stride_c), other = run_->to_device(run_->to_host(c));
    Stream stream;
    libraries_->multiply(stream, p, a.raw(), b.raw(), c.mutable_raw());
    cuda::multiply_integers(stream, p, a.raw(), b.raw(), other.mutable_raw(), other.raw());
    stream.wait();
    expect_same_bits(run_->to_host(other), run_->to_host(c));
  }
}

TEST_F(Products, ThatTheLibraryDoesNotTakeAreDefects) {
  Random r(5);
  const Tensor t = random(r, DType::I8, 4096);
  Tensor out = random(r, DType::I32, 4096);
  const MatrixProduct good{.type = DType::I8, .out = DType::I32, .transpose_b = true, .m = 3, .n = 16, .k = 32, .lda = 32, .ldb = 32, .ldc = 16};
  Stream stream;
  libraries_->multiply(stream, good, t.raw(), t.raw(), out.mutable_raw());
  const auto refused = [&](auto change, size_t offset = 0) {
    MatrixProduct p = good;
    change(p);
    EXPECT_THROW(libraries_->multiply(stream, p, t.raw() + offset, t.raw(), out.mutable_raw()), Error);
  };
  refused([](MatrixProduct& p) { p.k = 20; });
  refused([](MatrixProduct& p) { p.n = 8; });
  refused([](MatrixProduct& p) { p.lda = 40; });
  refused([](MatrixProduct& p) { p.transpose_b = false; });
  refused([](MatrixProduct& p) { p.bias = true; });
  refused([](MatrixProduct& p) { p.out = DType::F32; });
  refused([](MatrixProduct& p) { p.activation = MatrixProduct::Relu; });
  refused([](MatrixProduct& p) { p.k = 0; });
  refused([](MatrixProduct&) {}, 8);
}

TEST_F(Products, OfNothingDoNothing) {
  Stream stream;
  libraries_->multiply(stream, {.m = 0, .n = 4, .k = 2, .lda = 2, .ldb = 4, .ldc = 4}, nullptr, nullptr, nullptr);
}

}  // namespace
}  // namespace infopt::test
