#include "lib/runtime/cuda/code_product.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/ops/matmul.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/product.h"

namespace infopt::cuda {
namespace {

constexpr int kTile = 32;
constexpr int64_t kMostDepth = ((int64_t{1} << 31) - 1) / (255 * 255);  ///< products of codes whose sum surely fits
constexpr int64_t kMostImages = 65535;                                  ///< of a grid's third axis

/// Codes as int8: the same values, or 128 less.
INFOPT_DEVICE int centred(uint8_t byte, bool is_signed) { return is_signed ? static_cast<int8_t>(byte) : static_cast<int>(byte) - 128; }

/// Matrices [m, k] to int8 [m, padded], zeros behind k, and the rows' sums. A warp for each row.
__global__ void pack_rows(const uint8_t* x, int8_t* to, int32_t* sums, int64_t rows, int64_t k, int64_t padded, bool is_signed) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= rows) return;  // a whole warp
  int sum = 0;
  for (int64_t i = lane; i < padded; i += 32) {
    const int code = i < k ? centred(x[row * k + i], is_signed) : 0;
    to[row * padded + i] = static_cast<int8_t>(code);
    sum += code;
  }
  sum = warp_sum(sum);
  if (lane == 0) sums[row] = sum;
}

/// Matrices [k, n] to int8 [padded n, padded k], zeros outside, and the columns' sums. A block for 32 columns of a matrix.
__global__ void pack_columns(const uint8_t* x, int8_t* to, int32_t* sums, int64_t k, int64_t n, int64_t padded_k, int64_t padded_n, bool is_signed) {
  __shared__ int8_t tile[kTile][kTile + 4];
  __shared__ int parts[kTile][kTile + 1];
  const int across = static_cast<int>(threadIdx.x), down = static_cast<int>(threadIdx.y);
  const int64_t matrix = blockIdx.z, first = static_cast<int64_t>(blockIdx.x) * kTile, column = first + across;
  x += matrix * k * n;
  to += matrix * padded_k * padded_n;
  int sum = 0;
  for (int64_t k0 = 0; k0 < padded_k; k0 += kTile) {
    for (int i = down; i < kTile; i += static_cast<int>(blockDim.y)) {
      const int code = k0 + i < k && column < n ? centred(x[(k0 + i) * n + column], is_signed) : 0;
      tile[i][across] = static_cast<int8_t>(code);
      sum += code;
    }
    __syncthreads();
    for (int i = down; i < kTile; i += static_cast<int>(blockDim.y))
      if (first + i < padded_n && k0 + across < padded_k) to[(first + i) * padded_k + k0 + across] = tile[across][i];
    __syncthreads();
  }
  parts[down][across] = sum;
  __syncthreads();
  if (down != 0 || column >= n) return;
  for (int i = 1; i < static_cast<int>(blockDim.y); ++i) sum += parts[i][across];
  sums[matrix * n + column] = sum;
}

struct Zero {
  int32_t known;             ///< of centred codes
  const uint8_t* run_zero;   ///< a byte; null: known
  bool is_signed;
  INFOPT_DEVICE int value() const { return run_zero ? centred(*run_zero, is_signed) : known; }
};

struct Sums {
  const int32_t *products, *rows, *columns;  ///< products: [m, padded]
  int64_t m, n, k, padded;
  int64_t rows_step, columns_step;           ///< from one matrix to the next
  int64_t count;                             ///< elements of all matrices
  Zero a, b;
  const float* scales[2];
  Int8End end;
  void* y;
};

__global__ void finish(const __grid_constant__ Sums s) {
  const int za = s.a.value(), zb = s.b.value();
  Int8Column column;
  if (s.end.kind != Int8End::Int32) column.scale = s.scales[0] ? __fmul_rn(*s.scales[0], *s.scales[1]) : *s.end.scale;
  const int both = wrapped_multiply(static_cast<int>(s.k), wrapped_multiply(za, zb));
  for (int64_t e = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; e < s.count; e += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int64_t row = e / s.n, n = e - row * s.n, matrix = row / s.m, m = row - matrix * s.m;
    const int from_b = wrapped_multiply(zb, s.rows[matrix * s.rows_step + m]), from_a = wrapped_multiply(za, s.columns[matrix * s.columns_step + n]);
    const int sum = wrapped_add(wrapped_add(s.products[row * s.padded + n], both), -wrapped_add(from_a, from_b));
    if (s.end.kind == Int8End::Int32) static_cast<int*>(s.y)[e] = sum;
    else if (s.end.kind == Int8End::Float) static_cast<float*>(s.y)[e] = scaled(s.end, column, sum);
    else static_cast<uint8_t*>(s.y)[e] = static_cast<uint8_t>(last_code(s.end, s.end.table, first_code(s.end, column, sum), 0));
  }
}

int64_t padded_to_16(int64_t v) { return std::max<int64_t>(16, (v + 15) / 16 * 16); }

/// All matrices of a factor, packed.
struct Packed {
  Tensor codes, sums;
};

Packed pack_left(CudaContext& context, const Tensor& x, int64_t rows, int64_t k) {
  const int64_t padded = padded_to_16(k);
  Packed p{context.scratch(DType::I8, {rows, padded}), context.scratch(DType::I32, {rows})};
  INFOPT_LAUNCH(context.stream(), pack_rows, {blocks_for(rows, 8)}, {256}, 0, reinterpret_cast<const uint8_t*>(x.raw()), p.codes.mutable_data<int8_t>(), p.sums.mutable_data<int32_t>(), rows, k, padded,
                x.dtype() == DType::I8);
  return p;
}

Packed pack_right(CudaContext& context, const Tensor& x, int64_t matrices, int64_t k, int64_t n) {
  const int64_t padded_k = padded_to_16(k), padded_n = padded_to_16(n);
  Packed p{context.scratch(DType::I8, {matrices, padded_n, padded_k}), context.scratch(DType::I32, {matrices, n})};
  for (int64_t first = 0; first < matrices; first += kMostImages) {
    const int64_t count = std::min(kMostImages, matrices - first);
    INFOPT_LAUNCH(context.stream(), pack_columns, (Extent{blocks_for(padded_n, kTile), 1, count}), (Extent{kTile, 8}), 0, reinterpret_cast<const uint8_t*>(x.raw()) + first * k * n,
                  p.codes.mutable_data<int8_t>() + first * padded_n * padded_k, p.sums.mutable_data<int32_t>() + first * n, k, n, padded_k, padded_n, x.dtype() == DType::I8);
  }
  return p;
}

Zero zero_of(const CodeFactor& f) { return {f.codes.dtype() == DType::U8 ? f.zero - 128 : f.zero, f.run_zero, f.codes.dtype() == DType::I8}; }

void check_codes(const Tensor& t) {
  if (t.dtype() != DType::U8 && t.dtype() != DType::I8) throw Error(ErrorKind::Unsupported, "a product of codes of " + std::string(name_of(t.dtype())));
}

class CodeProductKernel : public CudaKernel {
 public:
  explicit CodeProductKernel(const CodeProduct& how) : how_(how), ending_(how.end ? how.end : plain_end({1.0f}, {}, how.bounds), 1, {}, {}) {}

  void run_cuda(CudaContext& context) const override {
    const Tensor &a = context.in(0), &b = context.in(1);
    if (how_.end && (a.dtype() != how_.a.dtype || b.dtype() != how_.b.dtype)) throw Error(ErrorKind::Malformed, "codes and zero points of different types");
    Int8End end = ending_.get(context.run());
    CodeFactor left{a, how_.a.zero}, right{b, how_.b.zero};
    const float* scales[2] = {};
    if (!how_.end) {
      left.zero = right.zero = 0;
      for (size_t i : {size_t{0}, size_t{1}}) {
        Int8End one;
        set_run_scale(one, context.in(2 + i));
        scales[i] = one.run_scale;
        const size_t at = i ? how_.b_zero : how_.a_zero;
        if (!at) continue;
        if (context.in(at).dtype() != context.in(i).dtype()) throw Error(ErrorKind::Malformed, "codes and zero points of different types");
        set_run_zero(one, context.in(at));
        (i ? right : left).run_zero = one.run_zero;
      }
    }
    multiply_codes(context, left, right, end, scales, context.out(0, ending_.output(), code_product_shape(a, b)));
  }
  std::string describe() const override { return "CUDA int8 product of two activations, cuBLASLt, to " + std::string(name_of(ending_.output())); }

 private:
  CodeProduct how_;
  Int8Ending ending_;
};

}  // namespace

Shape code_product_shape(const Tensor& a, const Tensor& b) {
  check_codes(a);
  check_codes(b);
  return align_product(a.shape(), b.shape()).result;
}

void multiply_codes(CudaContext& context, const CodeFactor& a, const CodeFactor& b, const Int8End& end, const float* const (&scales)[2], Tensor& y) {
  if (y.size() == 0) return;
  ProductShapes o = align_product(a.codes.shape(), b.codes.shape());
  flatten_rows(o);
  const size_t rank = o.a.size();
  const int64_t m = o.a[rank - 2], k = o.a[rank - 1], n = o.b[rank - 1], padded_k = padded_to_16(k), padded_n = padded_to_16(n);
  if (k > kMostDepth && end.kind != Int8End::Int32) throw Error(ErrorKind::Unsupported, "a product of codes over " + std::to_string(k) + " on CUDA");
  const LeadingAxes lead{{o.wide.begin(), o.wide.end() - 2}, {o.a.begin(), o.a.end() - 2}, {o.b.begin(), o.b.end() - 2}};
  const Packed left = pack_left(context, a.codes, element_count(lead.a) * m, k), right = pack_right(context, b.codes, element_count(lead.b), k, n);
  for (const Batches& g : regular_batches(lead)) {
    Tensor products = context.scratch(DType::I32, {g.count * m, padded_n});
    const MatrixProduct p{.type = DType::I8, .out = DType::I32, .transpose_b = true, .m = m, .n = padded_n, .k = padded_k, .lda = padded_k, .ldb = padded_k, .ldc = padded_n, .batch = g.count,
                          .stride_a = g.stride_a * m * padded_k, .stride_b = g.stride_b * padded_n * padded_k, .stride_c = m * padded_n};
    context.libraries().multiply(context.stream(), p, left.codes.data<int8_t>() + g.a * m * padded_k, right.codes.data<int8_t>() + g.b * padded_n * padded_k, products.mutable_raw());
    const auto run = [&](int64_t first, int64_t count) {  // matrices of this list that lie one behind the other in the result
      Sums s{products.data<int32_t>() + first * m * padded_n, left.sums.data<int32_t>() + (g.a + first * g.stride_a) * m, right.sums.data<int32_t>() + (g.b + first * g.stride_b) * n, m, n, k, padded_n,
             g.stride_a * m, g.stride_b * n, count * m * n, zero_of(a), zero_of(b), {scales[0], scales[1]}, end,
             y.mutable_raw() + static_cast<size_t>((g.c + first * g.stride_c) * m * n) * bytes_of_output(end)};
      INFOPT_LAUNCH(context.stream(), finish, {std::min<int64_t>(blocks_for(s.count, 256), 1 << 16)}, {256}, 0, s);
    };
    if (g.stride_c == 1) run(0, g.count);
    else
      for (int64_t i = 0; i < g.count; ++i) run(i, 1);
  }
}

std::unique_ptr<Kernel> make_code_product(CodeProduct how) { return std::make_unique<CodeProductKernel>(how); }

}  // namespace infopt::cuda
