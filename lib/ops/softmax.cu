// Softmax, LogSoftmax and Hardmax on the device, Softmax to codes of 8 bits too. Before opset 13 the tensor is taken as a matrix, split at the axis.
#include "lib/base/error.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/quantizer.h"
#include "lib/runtime/cuda/team.h"

namespace infopt::cuda {
namespace {

enum class Kind : uint8_t { Softmax, LogSoftmax, Hardmax };

/// A tensor as [outer, n, inner], normalized along n.
struct Problem {
  const void* x;
  void* y;
  int64_t outer = 1, n = 1, inner = 1;
  int64_t room = 0;  ///< elements that each row has in shared memory; 0: none
  DType type;
  Kind kind;
  bool by_four = false, codes_by_four = false;
  CodeWriter codes = {};  ///< instead of y
};

/// The largest element and the first place where it stands.
template <class W> struct Best {
  W value;
  int64_t place;
};
template <class W> INFOPT_DEVICE Best<W> better(Best<W> a, Best<W> b) {
  return b.value > a.value || (b.value == a.value && b.place < a.place) ? b : a;
}
template <class W> INFOPT_DEVICE Best<W> best_of_warp(Best<W> v) {
  INFOPT_UNROLL for (int by = 16; by > 0; by /= 2) {
    const Best<W> other{__shfl_xor_sync(0xffffffffu, v.value, by), __shfl_xor_sync(0xffffffffu, v.place, by)};
    v = better(v, other);
  }
  return v;
}

template <class W> INFOPT_DEVICE W lowest() { return -W(__int_as_float(0x7f800000)); }

/// A team for each row, which is read once where shared memory holds it.
template <class W, bool kBlock> __global__ void __launch_bounds__(1024) softmax_rows(const __grid_constant__ Problem p) {
  const int lanes = kBlock ? static_cast<int>(blockDim.x) : 32, teams = static_cast<int>(blockDim.x) / lanes, team = static_cast<int>(threadIdx.x) / lanes;
  W* cache = p.room ? shared_memory<W>() + team * p.room : nullptr;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * teams + team; row < p.outer; row += static_cast<int64_t>(gridDim.x) * teams) {
    const RowPart<W> part{p.x, row * p.n, p.n, cache, static_cast<int>(threadIdx.x) % lanes, lanes, p.type, p.by_four};
    W v[4], top = lowest<W>(), total = W(0);
    for (int64_t i = part.first(); i < p.n; i += part.step()) {
      part.read(i, v, lowest<W>());
      part.keep(i, v);
      INFOPT_UNROLL for (int k = 0; k < 4; ++k) top = Larger<W>{}(top, v[k]);
    }
    top = team_combine<kBlock>(top, Larger<W>{}, lowest<W>());
    for (int64_t i = part.first(); i < p.n; i += part.step()) {
      const int count = part.count(i);
      part.again(i, v, top);
      INFOPT_UNROLL for (int k = 0; k < 4; ++k) {
        const W e = std::exp(v[k] - top);
        if (k < count) total += e;
        if (p.kind == Kind::Softmax) v[k] = e;
      }
      if (p.kind == Kind::Softmax) part.keep(i, v);
    }
    total = team_combine<kBlock>(total, Plus<W>{}, W(0));
    const W inverse = W(1) / total, log_total = std::log(total);
    for (int64_t i = part.first(); i < p.n; i += part.step()) {
      const int count = part.count(i);
      part.again(i, v, top);
      INFOPT_UNROLL for (int k = 0; k < 4; ++k) v[k] = p.kind == Kind::LogSoftmax ? (v[k] - top) - log_total : (cache ? v[k] : std::exp(v[k] - top)) * inverse;
      if (p.codes.codes) {
        p.codes.store(part.begin + i, v, count, p.codes_by_four);
      } else if (p.by_four) {
        store_some(p.type, p.y, part.begin + i, v, 4);
      } else {
        INFOPT_UNROLL for (int k = 0; k < 4; ++k)
          if (k < count) store_one(p.type, p.y, part.begin + i + k, v[k]);
      }
    }
  }
}

constexpr int kTileRows = 8;

/// What eight warps hold for each of 32 columns, combined.
template <class W, class C> INFOPT_DEVICE W column_combine(W v, C combine) {
  __shared__ W tile[kTileRows][32];
  tile[threadIdx.y][threadIdx.x] = v;
  __syncthreads();
  W all = tile[0][threadIdx.x];
  INFOPT_UNROLL for (int y = 1; y < kTileRows; ++y) all = combine(all, tile[y][threadIdx.x]);
  __syncthreads();
  return all;
}

/// 32 columns to a block, its eight warps taking turns along n.
template <class W> __global__ void __launch_bounds__(256) softmax_columns(const __grid_constant__ Problem p) {
  const int64_t across = (p.inner + 31) / 32;
  for (int64_t t = blockIdx.x; t < p.outer * across; t += gridDim.x) {
    const int64_t o = t / across, j = (t - o * across) * 32 + threadIdx.x, base = o * p.n * p.inner + j, n = j < p.inner ? p.n : 0;
    W top = lowest<W>(), total = W(0);
    for (int64_t i = threadIdx.y; i < n; i += kTileRows) top = Larger<W>{}(top, load_one<W>(p.type, p.x, base + i * p.inner));
    top = column_combine(top, Larger<W>{});
    for (int64_t i = threadIdx.y; i < n; i += kTileRows) total += std::exp(load_one<W>(p.type, p.x, base + i * p.inner) - top);
    total = column_combine(total, Plus<W>{});
    const W inverse = W(1) / total, log_total = std::log(total);
    for (int64_t i = threadIdx.y; i < n; i += kTileRows) {
      const int64_t at = base + i * p.inner;
      const W d = load_one<W>(p.type, p.x, at) - top;
      const W result = p.kind == Kind::Softmax ? std::exp(d) * inverse : d - log_total;
      if (p.codes.codes) p.codes.codes[at] = p.codes.code(result);
      else store_one(p.type, p.y, at, result);
    }
  }
}

/// A warp for each line: 1 where the largest element first stands, else 0. Where nothing is larger than the first, that is it (NaN).
template <class W> __global__ void __launch_bounds__(128) hardmax_lines(const __grid_constant__ Problem p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t line = static_cast<int64_t>(blockIdx.x) * 4 + threadIdx.x / 32; line < p.outer * p.inner; line += static_cast<int64_t>(gridDim.x) * 4) {
    const int64_t o = line / p.inner, base = o * p.n * p.inner + (line - o * p.inner);
    const W first = load_one<W>(p.type, p.x, base);
    Best<W> best{first, 0};
    if (first == first)  // max_element keeps a NaN that comes first
      for (int64_t i = lane; i < p.n; i += 32) best = better(best, {load_one<W>(p.type, p.x, base + i * p.inner), i});
    best = best_of_warp(best);
    for (int64_t i = lane; i < p.n; i += 32) store_one(p.type, p.y, base + i * p.inner, i == best.place ? W(1) : W(0));
  }
}

template <class W> void start(Stream& stream, Problem p) {
  constexpr int64_t kMostBlocks = 1 << 30;
  if (p.kind == Kind::Hardmax) {
    INFOPT_LAUNCH(stream, hardmax_lines<W>, std::min(blocks_for(p.outer * p.inner, 4), kMostBlocks), 128, 0, p);
  } else if (p.inner > 1) {
    INFOPT_LAUNCH(stream, softmax_columns<W>, std::min(p.outer * blocks_for(p.inner, 32), kMostBlocks), {32, kTileRows}, 0, p);
  } else {
    const RowPlan rows = plan_rows(p.outer, p.n, sizeof(W), true);
    p.room = rows.shared ? rows.room : 0;
    p.by_four = rows_by_four(p.type, p.x, p.n);
    p.codes_by_four = rows_by_four(DType::U8, p.codes.codes, p.n);
    if (rows.lanes == 32) INFOPT_LAUNCH(stream, (softmax_rows<W, false>), rows.blocks, rows.threads, rows.shared, p);
    else INFOPT_LAUNCH(stream, (softmax_rows<W, true>), rows.blocks, rows.threads, rows.shared, p);
  }
}

void run(CudaContext& context, Kind kind, int64_t wanted_axis, bool matrix, const std::optional<CodeEnd>& codes = {}) {
  Layout layout;
  Tensor input = context.in_any(0, layout);
  const int64_t rank = input.rank();
  const int64_t axis = matrix && wanted_axis == rank ? rank : rank == 0 ? 0 : normalize_axis(wanted_axis, rank);
  const bool channels = layout == Layout::ChannelsLast && axis == 1 && !matrix;
  if (!channels && layout != Layout::Plain) input = context.in(0), layout = Layout::Plain;
  const DType dtype = input.dtype();
  if (dtype != DType::F32 && (dtype != DType::F64 || codes) && !is_16_bit_float(dtype)) refuse_type(dtype);
  Problem p{.x = input.raw(), .y = nullptr, .type = dtype, .kind = kind};
  for (int64_t d = 0; d < rank; ++d) (d < axis ? p.outer : d == axis || matrix ? p.n : p.inner) *= input.dim(d);
  if (channels) p.outer *= p.inner, p.inner = 1;
  void* y = context.out(0, codes ? codes->type : dtype, input.shape(), layout).mutable_raw();
  if (codes) p.codes = CodeWriter::of(*codes, dtype, y);
  else p.y = y;
  if (input.size() == 0) return;
  if (dtype == DType::F64) start<double>(context.stream(), p);
  else start<float>(context.stream(), p);
}

template <Kind kind> std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  const bool matrix = spec.opset < 13;
  const int64_t axis = spec.node.i("axis", matrix ? 1 : -1);
  return make_cuda_kernel([=](CudaContext& context) { run(context, kind, axis, matrix); }, "a warp or block for each row");
}

}  // namespace

std::unique_ptr<Kernel> make_softmax(FusedSoftmax how) {
  return make_cuda_kernel([how](CudaContext& context) { run(context, Kind::Softmax, how.axis, how.matrix, how.codes); }, "a warp or block for each row, to codes");
}

std::vector<CudaOp> cuda_softmax() {
  return {{.name = "Softmax", .make = &make<Kind::Softmax>}, {.name = "LogSoftmax", .make = &make<Kind::LogSoftmax>}, {.name = "Hardmax", .make = &make<Kind::Hardmax>}};
}

}  // namespace infopt::cuda
