// MatMulInteger: exact int32 sums of 8-bit products, by NumPy's rules for leading axes. By cuBLASLt where a zero point holds for a whole factor.
#include <algorithm>

#include "lib/ops/matmul.h"
#include "lib/runtime/cuda/code_product.h"
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/product.h"

namespace infopt::cuda {
namespace {

constexpr int kTile = 16;

/// Zero points: steps are 0 where one holds for all.
struct ZeroPoints {
  const void *a, *b;
  int64_t a_step, b_step;
};

struct Sizes {
  int64_t m, n, k, batches, a_batch, b_batch, y_batch;
};

/// A tile of 16×16 sums a block.
template <class A, class B> __global__ void multiply_codes(const A* a, const B* b, int32_t* y, ZeroPoints zeros, Sizes s) {
  __shared__ int left[kTile][kTile + 1], right[kTile][kTile + 1];
  const int x = static_cast<int>(threadIdx.x), row = static_cast<int>(threadIdx.y);
  const int64_t across = (s.n + kTile - 1) / kTile, m = blockIdx.x / across * kTile + row, n = blockIdx.x % across * kTile + x;
  a += blockIdx.z * s.a_batch;
  b += blockIdx.z * s.b_batch;
  const int a_zero = zeros.a && m < s.m ? static_cast<const A*>(zeros.a)[m * zeros.a_step] : 0, b_zero = zeros.b && n < s.n ? static_cast<const B*>(zeros.b)[n * zeros.b_step] : 0;
  uint32_t sum = 0;
  for (int64_t k = 0; k < s.k; k += kTile) {
    left[row][x] = m < s.m && k + x < s.k ? a[m * s.k + k + x] - a_zero : 0;
    right[row][x] = k + row < s.k && n < s.n ? b[(k + row) * s.n + n] - b_zero : 0;
    __syncthreads();
    for (int i = 0; i < kTile; ++i) sum += static_cast<uint32_t>(left[row][i] * right[i][x]);
    __syncthreads();
  }
  if (m < s.m && n < s.n) y[blockIdx.z * s.y_batch + m * s.n + n] = static_cast<int32_t>(sum);
}

/// A zero point for all, or one for each row of A or column of B.
int64_t zero_step(const Tensor& zero, const Tensor& of, int64_t wanted) {
  if (zero.dtype() != of.dtype()) throw Error(ErrorKind::Malformed, "a zero point of " + std::string(name_of(zero.dtype())) + " for " + std::string(name_of(of.dtype())));
  if (zero.size() != 1 && zero.size() != wanted) throw Error(ErrorKind::Malformed, "a zero point of shape " + to_string(zero.shape()) + " for a tensor of " + to_string(of.shape()));
  return zero.size() == 1 ? 0 : 1;
}

template <class A, class B> void run_of(Stream& stream, const Tensor& a, const Tensor& b, Tensor& y, const ZeroPoints& zeros, Sizes s, const LeadingAxes& lead) {
  for (const Batches& g : regular_batches(lead))
    for (int64_t first = 0; first < g.count; first += 65535) {
      s.a_batch = g.stride_a * s.m * s.k, s.b_batch = g.stride_b * s.k * s.n, s.y_batch = g.stride_c * s.m * s.n;
      INFOPT_LAUNCH(stream, (multiply_codes<A, B>), {blocks_for(s.m, kTile) * blocks_for(s.n, kTile), 1, std::min<int64_t>(65535, g.count - first)}, {kTile, kTile}, 0,
                    a.data<A>() + g.a * s.m * s.k + first * s.a_batch, b.data<B>() + g.b * s.k * s.n + first * s.b_batch, y.mutable_data<int32_t>() + g.c * s.m * s.n + first * s.y_batch, zeros, s);
    }
}

void run_matmul_integer(CudaContext& context) {
  const Tensor &a = context.in(0), &b = context.in(1);
  for (const Tensor* t : {&a, &b})
    if (t->dtype() != DType::U8 && t->dtype() != DType::I8) throw Error(ErrorKind::Malformed, "MatMulInteger of " + std::string(name_of(t->dtype())));
  const ProductShapes o = align_product(a.shape(), b.shape());
  const size_t rank = o.a.size();
  const Sizes s{o.a[rank - 2], o.b[rank - 1], o.a[rank - 1], 1, 0, 0, 0};
  ZeroPoints zeros{nullptr, nullptr, 0, 0};
  Tensor za, zb;
  if (context.has(2)) {
    za = context.in(2);
    zeros.a = za.raw();
    zeros.a_step = zero_step(za, a, s.m);
  }
  if (context.has(3)) {
    zb = context.in(3);
    zeros.b = zb.raw();
    zeros.b_step = zero_step(zb, b, b.rank() > 1 ? s.n : b.size());
    if (b.rank() == 1 && zeros.b_step == 1) throw Error(ErrorKind::Unsupported, "a zero point for each element of a vector");
  }
  Tensor& y = context.out(0, DType::I32, o.result);
  if (y.size() == 0) return;
  if (zeros.a_step == 0 && zeros.b_step == 0) {
    Int8End end;
    end.kind = Int8End::Int32;
    return multiply_codes(context, {a, 0, static_cast<const uint8_t*>(zeros.a)}, {b, 0, static_cast<const uint8_t*>(zeros.b)}, end, {nullptr, nullptr}, y);
  }
  const LeadingAxes lead{{o.wide.begin(), o.wide.end() - 2}, {o.a.begin(), o.a.end() - 2}, {o.b.begin(), o.b.end() - 2}};
  const bool unsigned_a = a.dtype() == DType::U8, unsigned_b = b.dtype() == DType::U8;
  if (unsigned_a && unsigned_b) run_of<uint8_t, uint8_t>(context.stream(), a, b, y, zeros, s, lead);
  else if (unsigned_a) run_of<uint8_t, int8_t>(context.stream(), a, b, y, zeros, s, lead);
  else if (unsigned_b) run_of<int8_t, uint8_t>(context.stream(), a, b, y, zeros, s, lead);
  else run_of<int8_t, int8_t>(context.stream(), a, b, y, zeros, s, lead);
}

}  // namespace

std::vector<CudaOp> cuda_matmul_integer() {
  return {{.name = "MatMulInteger", .make = [](const KernelSpec&) { return make_cuda_kernel(run_matmul_integer, "exact int32 sums of 8-bit products"); }}};
}

}  // namespace infopt::cuda
