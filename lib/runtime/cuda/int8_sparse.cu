#include "lib/runtime/cuda/int8_sparse.h"

#include <algorithm>

#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/pack.h"
#include "lib/runtime/cuda/sparse_library.h"

namespace infopt::cuda {
namespace {

/// uint8 codes as int8, 128 less: 16 of them a thread.
__global__ void less_128(const uint4* x, uint4* y, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const uint4 v = x[i];
    y[i] = make_uint4(v.x ^ 0x80808080u, v.y ^ 0x80808080u, v.z ^ 0x80808080u, v.w ^ 0x80808080u);
  }
}

/// V neighbouring sums a thread; `add` (null: nothing) has one number for each column.
template <int V> __global__ void finish_sums(const int* sums, const int* add, int64_t count, int64_t columns, Int8End end, void* y) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const int64_t at = i * V, n = at % columns;
    int own[V];
INFOPT_UNROLL
    for (int j = 0; j < V; ++j) own[j] = add ? wrapped_add(sums[at + j], __ldg(add + n + j)) : sums[at + j];
    store_sums<V>(end, own, at, n, y);
  }
}

bool aligned_4(const void* p) { return reinterpret_cast<uintptr_t>(p) % 4 == 0; }

}  // namespace

Int8Sparse::Int8Sparse(const WeightMatrix& weights, bool pointwise, SparseUse use) : n_(weights.n), k_(weights.k), choice_(use) {
  if (use == SparseUse::Never) return;
  const SparsePattern pattern = find_pattern(weights);
  if (!pattern.two_of_four) {
    if (pattern.zeros >= kWorthSaying) why_dense_ = percent_text(pattern.zeros) + " zeros, not 2:4: dense";
    return;
  }
  const std::string misfit = sparse_weights_misfit(DType::I8, n_, k_), missing = sparse_library_missing();
  if (!pointwise) why_dense_ = "2:4, dense: a window of more than a pixel is read where it lies";
  else if (!misfit.empty()) why_dense_ = "2:4, dense: " + misfit;
  else if (!missing.empty()) why_dense_ = "2:4, dense: " + missing;
  if (!why_dense_.empty()) return;
  Tensor sums(DType::I32, {n_});
  for (int64_t n = 0; n < n_; ++n) {
    uint32_t sum = 0;
    for (int64_t k = 0; k < k_; ++k) sum += static_cast<uint32_t>(static_cast<int32_t>(static_cast<int8_t>(weights.data.raw()[n * weights.n_stride + k * weights.k_stride])));
    sums.mutable_data<int32_t>()[n] = static_cast<int32_t>(128 * sum);
  }
  from_unsigned_.set(std::move(sums));
  compressed_ = std::make_unique<CompressedWeights>(weights);
}

std::string Int8Sparse::describe() const { return compressed_ ? choice_.describe("2:4") : why_dense_; }

void Int8Sparse::multiply_2_of_4(CudaContext& context, const Tensor& x, int64_t m, const Int8End& end, void* y) const {
  const void* codes = x.raw();
  const int* add = nullptr;
  Tensor moved;
  if (x.dtype() == DType::U8) {
    moved = context.scratch(DType::I8, {m, k_});
    INFOPT_LAUNCH(context.stream(), less_128, {grid_for(m * k_ / 16, 256)}, {256}, 0, static_cast<const uint4*>(codes), reinterpret_cast<uint4*>(moved.mutable_raw()), m * k_ / 16);
    codes = moved.raw();
    add = reinterpret_cast<const int*>(from_unsigned_.get(context.run()).raw());
  }
  Tensor sums = context.scratch(DType::I32, {m, n_});
  const MatrixProduct p{.type = DType::I8, .out = DType::I32, .transpose_b = true, .m = m, .n = n_, .k = k_, .lda = k_, .ldb = k_, .ldc = n_};
  context.libraries().sparse().multiply(context.stream(), p, codes, compressed_->get(context.run()), sums.mutable_raw());
  const int* from = reinterpret_cast<const int*>(sums.raw());
  if (aligned_4(y) && (!end.residual || aligned_4(end.residual_data)))
    INFOPT_LAUNCH(context.stream(), finish_sums<4>, {grid_for(m * n_ / 4, 256)}, {256}, 0, from, add, m * n_ / 4, n_, end, y);
  else
    INFOPT_LAUNCH(context.stream(), finish_sums<1>, {grid_for(m * n_, 256)}, {256}, 0, from, add, m * n_, n_, end, y);
}

void Int8Sparse::multiply(CudaContext& context, const Tensor& x, int64_t m, const Int8End& end, void* y, std::function<void()> dense) const {
  std::vector<Candidate> candidates{{"dense", std::move(dense)}};
  const std::string misfit = sparse_rows_misfit(DType::I8, m);
  if (!misfit.empty()) choice_.note("2:4, dense: " + misfit);
  else if (!aligned_16(x.raw())) choice_.note("2:4, dense: codes that aren't aligned to 16 bytes");
  else if (m > 0 && (!context.stream().capturing() || compressed_->there()))
    candidates.push_back({"2:4", [&] { multiply_2_of_4(context, x, m, end, y); }, [&] { compressed_->drop(); }});
  candidates[choice_.choose(context.run(), m, candidates)].run();
}

}  // namespace infopt::cuda
