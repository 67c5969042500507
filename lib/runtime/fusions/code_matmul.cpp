#include "lib/runtime/fusions/code_matmul.h"

#include <algorithm>
#include <exception>
#include <mutex>

#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/runtime/cpu/int8_elementwise.h"
#include "lib/runtime/fusions/product_rows.h"

namespace infopt {
namespace {

constexpr int64_t kMostDepth = ((int64_t{1} << 31) - 1) / (255 * 255);  ///< products of codes whose sum surely fits

/// The factors as [batch…, m, k] and [batch…, k, n] with the same number of axes.
struct Matrices {
  Shape a, b, batch;  ///< batch: the result's leading axes
  int64_t m = 1, k = 1, n = 1, batches = 1;
  bool vector_a = false, vector_b = false;

  Matrices(const Tensor& left, const Tensor& right) : a(left.shape()), b(right.shape()) {
    if (a.empty() || b.empty()) throw Error(ErrorKind::Malformed, "a product of scalars");
    vector_a = a.size() == 1;
    vector_b = b.size() == 1;
    if (vector_a) a.insert(a.begin(), 1);
    if (vector_b) b.push_back(1);
    const size_t rank = std::max(a.size(), b.size());
    a.insert(a.begin(), rank - a.size(), 1);
    b.insert(b.begin(), rank - b.size(), 1);
    m = a[rank - 2], k = a[rank - 1], n = b[rank - 1];
    bool fits = b[rank - 2] == k;
    for (size_t i = 0; i + 2 < rank; ++i) {
      fits = fits && (a[i] == b[i] || a[i] == 1 || b[i] == 1);
      batch.push_back(a[i] == 1 ? b[i] : a[i]);
    }
    if (!fits)
      throw Error(ErrorKind::Malformed,
                  "shapes " + to_string(left.shape()) + " and " + to_string(right.shape()) + " don't fit for a product");
    batches = element_count(batch);
  }

  /// The number of a factor's matrix in the q-th product.
  int64_t matrix(const Shape& factor, int64_t q) const {
    int64_t at = 0, step = 1;
    for (size_t i = batch.size(); i-- > 0; q /= batch[i]) {
      at += factor[i] == 1 ? 0 : q % batch[i] * step;
      step *= factor[i];
    }
    return at;
  }
  int64_t count(const Shape& factor) const { return element_count({factor.begin(), factor.end() - 2}); }
};

/// The products, batch by batch, of columns [from, from + depth) of a's rows.
class Multiplication {
 public:
  Multiplication(const Matrices& shapes, const CodeFactor& a, const CodeFactor& b) : s_(shapes), a_(a), b_(b), zeros_(b.zeros) {
    zeros_.resize(static_cast<size_t>(s_.n), zeros_[0]);
  }

  void run(const cpu::Int8Epilogue& epilogue, int64_t from, int64_t depth, const float* residual, Tensor& y) const {
    if (s_.count(s_.b) == 1) {  // one right side: all rows are one matrix
      const int64_t rows = s_.batches * s_.m;
      return multiply_rows(rows_of(0, from), pack(0, from, depth), epilogue, residual, y, rows);
    }
    const int64_t row_bytes = s_.n * static_cast<int64_t>(bits_of(y.dtype()) / 8);
    const auto multiply = [&](int64_t q, auto&& product) {
      const int64_t place = q * s_.m * row_bytes;
      product(rows_of(s_.matrix(s_.a, q), from), pack(s_.matrix(s_.b, q), from, depth), residual ? residual + q * s_.m * s_.n : nullptr,
              place);
    };
    if (s_.batches < run_threads()) {
      for (int64_t q = 0; q < s_.batches; ++q)
        multiply(q, [&](const cpu::Int8Rows& rows, const cpu::PackedInt8& packed, const float* r, int64_t place) {
          Tensor part(y.dtype(), {s_.m, s_.n}, std::make_shared<Tensor>(y), y.raw() + place);
          multiply_rows(rows, packed, epilogue, r, part, s_.m);
        });
      return;
    }
    std::exception_ptr failure;
    std::mutex mutex;
    share_work(s_.batches, 1, [&](int64_t begin, int64_t end) {
      try {
        for (int64_t q = begin; q < end; ++q)
          multiply(q, [&](const cpu::Int8Rows& rows, const cpu::PackedInt8& packed, const float* r, int64_t place) {
            cpu::int8_product(rows, packed, epilogue, r, y.mutable_raw() + place, s_.n, 0, s_.m);
          });
      } catch (...) {
        std::lock_guard lock(mutex);
        failure = std::current_exception();
      }
    });
    if (failure) std::rethrow_exception(failure);
  }

 private:
  cpu::Int8Rows rows_of(int64_t matrix, int64_t from) const {
    return {a_.codes.raw() + matrix * s_.m * s_.k + from, a_.codes.dtype(), s_.k, a_.zeros[0]};
  }
  cpu::PackedInt8 pack(int64_t matrix, int64_t from, int64_t depth) const {
    return {b_.codes.raw() + (matrix * s_.k + from) * s_.n, b_.codes.dtype(), depth, s_.n, s_.n, 1, zeros_.data()};
  }

  const Matrices& s_;
  const CodeFactor &a_, &b_;
  std::vector<int32_t> zeros_;
};

/// Piece by piece in float32, then bounds and rounding.
void multiply_deep(const Multiplication& multiplication, const Matrices& s, const CodeProductEnd& end, Tensor& y) {
  const std::vector<float> scales(static_cast<size_t>(s.n), end.scale);
  cpu::Int8Epilogue piece;
  piece.output = DType::F32;
  piece.scale = scales.data();
  Tensor sum(DType::F32, y.shape());
  for (int64_t from = 0; from < s.k; from += kMostDepth) {
    piece.residual = from > 0;
    piece.residual_dtype = DType::F32;
    multiplication.run(piece, from, std::min(kMostDepth, s.k - from), from > 0 ? sum.data<float>() : nullptr, sum);
  }
  float* v = sum.mutable_data<float>();
  for (int64_t i = 0; i < sum.size(); ++i) v[i] = std::min(std::max(v[i], end.epilogue.low), end.epilogue.high);
  if (end.epilogue.output == DType::F32) {
    std::copy_n(sum.raw(), sum.bytes(), y.mutable_raw());
    return;
  }
  auto* codes = reinterpret_cast<uint8_t*>(y.mutable_raw());
  cpu::int8_quantize(v, codes, end.epilogue.output, sum.size(), 1.0f, end.epilogue.zero);
  if (end.epilogue.table) cpu::int8_lookup(codes, codes, sum.size(), end.epilogue.table);
}

}  // namespace

Shape product_shape(const Tensor& a, const Tensor& b) {
  const Matrices s(a, b);
  Shape shape = s.batch;
  if (!s.vector_a) shape.push_back(s.m);
  if (!s.vector_b) shape.push_back(s.n);
  return shape;
}

void multiply_codes(const CodeFactor& a, const CodeFactor& b, const CodeProductEnd& end, Tensor& y) {
  if (y.size() == 0) return;
  const Matrices s(a.codes, b.codes);
  const Multiplication multiplication(s, a, b);
  if (s.k > kMostDepth && end.epilogue.output != DType::I32) return multiply_deep(multiplication, s, end, y);
  const std::vector<float> scales(static_cast<size_t>(s.n), end.scale);
  cpu::Int8Epilogue epilogue = end.epilogue;
  epilogue.scale = scales.data();
  multiplication.run(epilogue, 0, s.k, nullptr, y);
}

}  // namespace infopt
