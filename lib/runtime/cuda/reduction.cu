#include "lib/runtime/cuda/reduction.h"

#include <limits>

#include "lib/base/error.h"
#include "lib/runtime/cuda/element.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/team.h"

namespace infopt::cuda {
namespace {

enum class Before : uint8_t { Nothing, Abs, Square, ExpShift };
enum class Combine : uint8_t { Sum, Product, Max, Min };
enum class After : uint8_t { Nothing, Mean, Root, Log, LogShift };

constexpr int kThreads = 256, kTileRows = 8;
constexpr int64_t kEnoughBlocks = 512;  // they fill the largest GPU

struct Parts {
  int64_t sizes[kMostDims], strides[kMostDims];  ///< innermost first
  int depth;
};

struct Reduction {
  const void* x;
  void* y;
  const void* shift;  ///< for ExpShift: the largest of each result's elements, as W
  int64_t outer, n, inner;
  int64_t chunk;      ///< elements of a result that one block takes; then y is of W, [chunks, results]
  int64_t count;      ///< elements that Mean divides by
  double start_real;
  int64_t start_integer;
  Parts kept, reduced;
  DType from, to;
  Before before;
  Combine combine;
  After after;
  bool by_four, partial;
};

template <class W> INFOPT_DEVICE W start_of(const Reduction& r) {
  if constexpr (std::is_floating_point_v<W>) return static_cast<W>(r.start_real);
  else return static_cast<W>(r.start_integer);
}

template <class W> INFOPT_DEVICE W combined(Combine how, W a, W b) {
  switch (how) {
    case Combine::Product:
      if constexpr (std::is_floating_point_v<W>) return a * b;
      else return static_cast<W>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    case Combine::Max: return b > a || b != b ? b : a;
    case Combine::Min: return b < a || b != b ? b : a;
    default:
      if constexpr (std::is_floating_point_v<W>) return a + b;
      else return static_cast<W>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  }
}

template <class W> struct Combiner {
  Combine how;
  INFOPT_DEVICE W operator()(W a, W b) const { return combined(how, a, b); }
};

template <class W> INFOPT_DEVICE W prepared(Before before, W v, W shift) {
  if (before == Before::Square) return combined(Combine::Product, v, v);
  if (before == Before::Abs) {
    if constexpr (std::is_floating_point_v<W>) return std::fabs(v);
    else if constexpr (std::is_signed_v<W>) return v < W(0) ? static_cast<W>(uint64_t{0} - static_cast<uint64_t>(v)) : v;
    else return v;
  }
  if constexpr (std::is_floating_point_v<W>)
    if (before == Before::ExpShift) return std::exp(v - shift);
  return v;
}

template <class W> INFOPT_DEVICE void finish(const Reduction& r, int64_t result, W v, int64_t results, int64_t part) {
  if (r.partial) {
    static_cast<W*>(r.y)[part * results + result] = v;
    return;
  }
  if (r.after == After::Mean) v = r.count || std::is_floating_point_v<W> ? v / static_cast<W>(r.count) : W(0);
  if constexpr (std::is_floating_point_v<W>) {
    if (r.after == After::Root) v = std::sqrt(v);
    if (r.after == After::Log) v = std::log(v);
    if (r.after == After::LogShift) {
      const W shift = static_cast<const W*>(r.shift)[result];
      v = shift - shift == W(0) ? shift + std::log(v) : shift;  // an infinity or NaN is the result
    }
    if (v != v && r.start_integer) v = -W(__int_as_float(0x7f800000));  // an integer's logarithm that there isn't: the least
  }
  store_one(r.to, r.y, result, v);
}

template <class W> INFOPT_DEVICE W shift_of(const Reduction& r, int64_t result) { return r.before == Before::ExpShift ? static_cast<const W*>(r.shift)[result] : W(0); }

/// Rows of n elements side by side: a team for each, or a block for each chunk of one.
template <class W, bool kBlock> __global__ void __launch_bounds__(kThreads) reduce_rows(const __grid_constant__ Reduction r) {
  const int lanes = kBlock ? static_cast<int>(blockDim.x) : 32, teams = static_cast<int>(blockDim.x) / lanes, team = static_cast<int>(threadIdx.x) / lanes;
  const W start = start_of<W>(r);
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * teams + team; row < r.outer; row += static_cast<int64_t>(gridDim.x) * teams) {
    const int64_t begin = static_cast<int64_t>(blockIdx.y) * r.chunk, left = r.n - begin, n = left < r.chunk ? left : r.chunk;
    const RowPart<W> part{r.x, row * r.n + begin, n, nullptr, static_cast<int>(threadIdx.x) % lanes, lanes, r.from, r.by_four};
    const W shift = shift_of<W>(r, row);
    W totals[4] = {start, start, start, start};
    for (int64_t i = part.first(); i < n; i += 2 * part.step()) {
      const int64_t next = i + part.step();
      W v[4], w[4] = {};
      part.read(i, v, W(0));
      if (next < n) part.read(next, w, W(0));
      const int count = part.count(i), more = next < n ? part.count(next) : 0;
      INFOPT_UNROLL for (int k = 0; k < 4; ++k) {
        if (k < count) totals[k] = combined(r.combine, totals[k], prepared(r.before, v[k], shift));
        if (k < more) totals[k] = combined(r.combine, totals[k], prepared(r.before, w[k], shift));
      }
    }
    const W sum = combined(r.combine, combined(r.combine, totals[0], totals[1]), combined(r.combine, totals[2], totals[3]));
    const W total = team_combine<kBlock>(sum, Combiner<W>{r.combine}, start);
    if (threadIdx.x % lanes == 0) finish(r, row, total, r.outer, blockIdx.y);
  }
}

/// [outer, n, inner] reduced along n: 32 columns (or 32 fours of them) to a block, its eight warps taking turns along n.
template <class W, int kColumns> __global__ void __launch_bounds__(kThreads) reduce_columns(const __grid_constant__ Reduction r) {
  __shared__ W tile[kTileRows][32 * kColumns];
  const W start = start_of<W>(r);
  const int64_t across = (r.inner + 32 * kColumns - 1) / (32 * kColumns), results = r.outer * r.inner, tiles = r.outer * across;
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int64_t o = t / across, j = (t - o * across) * 32 * kColumns + static_cast<int64_t>(threadIdx.x) * kColumns;
    const int64_t begin = static_cast<int64_t>(blockIdx.y) * r.chunk, end = begin + r.chunk < r.n ? begin + r.chunk : r.n;
    W totals[kColumns], shifts[kColumns];
    INFOPT_UNROLL for (int c = 0; c < kColumns; ++c) {
      totals[c] = start;
      shifts[c] = j + c < r.inner ? shift_of<W>(r, o * r.inner + j + c) : W(0);
    }
    if (j < r.inner)
      for (int64_t i = begin + threadIdx.y; i < end; i += 2 * kTileRows) {
        const int64_t place = (o * r.n + i) * r.inner + j;
        const bool two = i + kTileRows < end;
        W v[kColumns], w[kColumns] = {};
        if constexpr (kColumns == 4) {
          load_four(r.from, r.x, place, v);
          if (two) load_four(r.from, r.x, place + kTileRows * r.inner, w);
        } else {
          v[0] = load_one<W>(r.from, r.x, place);
          if (two) w[0] = load_one<W>(r.from, r.x, place + kTileRows * r.inner);
        }
        INFOPT_UNROLL for (int c = 0; c < kColumns; ++c) {
          totals[c] = combined(r.combine, totals[c], prepared(r.before, v[c], shifts[c]));
          if (two) totals[c] = combined(r.combine, totals[c], prepared(r.before, w[c], shifts[c]));
        }
      }
    INFOPT_UNROLL for (int c = 0; c < kColumns; ++c) tile[threadIdx.y][threadIdx.x * kColumns + static_cast<unsigned>(c)] = totals[c];
    __syncthreads();
    for (int c = static_cast<int>(threadIdx.y); c < kColumns; c += kTileRows) {
      const int column = c * 32 + static_cast<int>(threadIdx.x);
      const int64_t at = (t - o * across) * 32 * kColumns + column;
      if (at >= r.inner) continue;
      W total = tile[0][column];
      INFOPT_UNROLL for (int y = 1; y < kTileRows; ++y) total = combined(r.combine, total, tile[y][column]);
      finish(r, o * r.inner + at, total, results, blockIdx.y);
    }
    __syncthreads();
  }
}

INFOPT_DEVICE int64_t place_in(const Parts& parts, int64_t index) {
  int64_t place = 0;
  for (int d = 0; d < parts.depth; ++d) {
    const int64_t quotient = index / parts.sizes[d];
    place += (index - quotient * parts.sizes[d]) * parts.strides[d];
    index = quotient;
  }
  return place;
}

/// Any axes: a block for each result.
template <class W> __global__ void __launch_bounds__(kThreads) reduce_any(const __grid_constant__ Reduction r) {
  const W start = start_of<W>(r);
  for (int64_t k = blockIdx.x; k < r.outer; k += gridDim.x) {
    const int64_t base = place_in(r.kept, k);
    const W shift = shift_of<W>(r, k);
    W total = start;
    for (int64_t i = threadIdx.x; i < r.n; i += blockDim.x) total = combined(r.combine, total, prepared(r.before, load_one<W>(r.from, r.x, base + place_in(r.reduced, i)), shift));
    total = block_combine(total, Combiner<W>{r.combine}, start);
    if (threadIdx.x == 0) finish(r, k, total, r.outer, 0);
  }
}

int64_t grid_of(int64_t blocks) { return std::min<int64_t>(blocks, 1 << 30); }

template <class W> void start_columns(Stream& stream, const Reduction& r, int64_t chunks) {
  if (r.by_four) INFOPT_LAUNCH(stream, (reduce_columns<W, 4>), {grid_of(r.outer * blocks_for(r.inner, 128)), chunks}, {32, kTileRows}, 0, r);
  else INFOPT_LAUNCH(stream, (reduce_columns<W, 1>), {grid_of(r.outer * blocks_for(r.inner, 32)), chunks}, {32, kTileRows}, 0, r);
}

template <class W> void start_rows(Stream& stream, const Reduction& r, int64_t chunks) {
  if (r.chunk <= 1024) INFOPT_LAUNCH(stream, (reduce_rows<W, false>), {grid_of(blocks_for(r.outer, kThreads / 32)), chunks}, kThreads, 0, r);
  else INFOPT_LAUNCH(stream, (reduce_rows<W, true>), {grid_of(r.outer), chunks}, kThreads, 0, r);
}

template <class W> inline constexpr DType kTypeOf = DType::F32;
template <> inline constexpr DType kTypeOf<double> = DType::F64;
template <> inline constexpr DType kTypeOf<int64_t> = DType::I64;
template <> inline constexpr DType kTypeOf<uint64_t> = DType::U64;

/// Few results of many elements: chunks of them first, then the chunks' results.
template <class W> void run_simple(CudaRun& run, Reduction r) {
  const bool rows = r.inner == 1;
  r.by_four = rows ? rows_by_four(r.from, r.x, r.n) : rows_by_four(r.from, r.x, r.inner);
  const int64_t least = rows ? 8192 : 128;  // elements of a chunk
  const int64_t blocks = rows ? r.outer : r.outer * blocks_for(r.inner, r.by_four ? 128 : 32);
  int64_t chunks = std::min({kEnoughBlocks / std::max<int64_t>(blocks, 1), r.n / least, int64_t{65535}});
  r.chunk = r.n;
  if (chunks < 2) return rows ? start_rows<W>(run.stream(), r, 1) : start_columns<W>(run.stream(), r, 1);
  r.chunk = (blocks_for(r.n, chunks) + 3) / 4 * 4;
  chunks = blocks_for(r.n, r.chunk);
  const int64_t results = r.outer * r.inner;
  const Tensor parts = run.make(kTypeOf<W>, {chunks, results});
  Reduction second = r;
  r.partial = true;
  r.y = const_cast<std::byte*>(parts.raw());
  if (rows) start_rows<W>(run.stream(), r, chunks);
  else start_columns<W>(run.stream(), r, chunks);
  second.x = parts.raw();
  second.from = kTypeOf<W>;
  second.before = Before::Nothing;
  second.outer = 1, second.n = second.chunk = chunks, second.inner = results;
  second.by_four = results % 4 == 0;
  start_columns<W>(run.stream(), second, 1);
}

Parts parts_of(const std::vector<ReduceView::Part>& from) {
  Parts parts = {};
  if (from.size() > kMostDims) throw Error(ErrorKind::Unsupported, "a reduction over axes that take turns " + std::to_string(from.size()) + " times");
  for (auto it = from.rbegin(); it != from.rend(); ++it, ++parts.depth) parts.sizes[parts.depth] = it->size, parts.strides[parts.depth] = it->stride;
  return parts;
}

template <class W> void run_one(CudaRun& run, Reduction r, const ReduceView& view) {
  if (view.simple || view.reduced_count == 0) {
    r.outer = view.outer, r.n = view.n, r.inner = view.inner;
    if (view.reduced_count == 0) r.outer = 1, r.n = 0, r.inner = view.kept_count;  // every result is the beginning's
    return run_simple<W>(run, r);
  }
  r.outer = view.kept_count, r.n = view.reduced_count;
  r.kept = parts_of(view.kept);
  r.reduced = parts_of(view.reduced);
  INFOPT_LAUNCH(run.stream(), reduce_any<W>, grid_of(r.outer), kThreads, 0, r);
}

template <class W> void run_kind(CudaRun& run, ReduceKind kind, Reduction r, const ReduceView& view) {
  Tensor shift;
  if (kind == ReduceKind::LogSumExp) {
    shift = run.make(kTypeOf<W>, {view.kept_count});
    Reduction top = r;
    top.combine = Combine::Max;
    top.start_real = -std::numeric_limits<double>::infinity(), top.start_integer = 0;
    top.to = kTypeOf<W>;
    top.y = shift.mutable_raw();
    run_one<W>(run, top, view);
    r.before = Before::ExpShift;
    r.after = After::LogShift;
    r.shift = shift.raw();
  }
  run_one<W>(run, r, view);
}

/// What a reduction of nothing gives, and that no element changes.
void set_start(Reduction& r, DType dtype) {
  const double infinity = std::numeric_limits<double>::infinity();
  r.start_real = r.combine == Combine::Product ? 1 : r.combine == Combine::Max ? -infinity : r.combine == Combine::Min ? infinity : 0;
  r.start_integer = r.combine == Combine::Product ? 1 : 0;
  if (is_float(dtype) || (r.combine != Combine::Max && r.combine != Combine::Min)) return;
  const bool max = r.combine == Combine::Max;
  if (dtype == DType::Bool) r.start_integer = max ? 0 : 1;
  else visit_integer(dtype, [&]<class T>() { r.start_integer = static_cast<int64_t>(max ? std::numeric_limits<T>::lowest() : std::numeric_limits<T>::max()); });
}

}  // namespace

void run_reduction(CudaRun& run, ReduceKind kind, DType from, const void* x, const ReduceView& view, DType to, void* y) {
  if (view.kept_count == 0) return;
  if (bits_of(from) < 8 || (from == DType::Bool && kind != ReduceKind::Max && kind != ReduceKind::Min)) refuse_type(from);
  Reduction r = {};
  r.x = x, r.y = y, r.from = from, r.to = to, r.count = view.reduced_count;
  using enum ReduceKind;
  r.before = kind == L1 ? Before::Abs : kind == L2 || kind == SumSquare ? Before::Square : Before::Nothing;
  r.combine = kind == Max ? Combine::Max : kind == Min ? Combine::Min : kind == Prod ? Combine::Product : Combine::Sum;
  r.after = kind == Mean ? After::Mean : kind == L2 ? After::Root : kind == LogSum ? After::Log : After::Nothing;
  set_start(r, from);
  const bool by_double = !is_float(from) && (kind == L2 || kind == LogSum || kind == LogSumExp);
  if (by_double) r.start_integer = 1;  // tells finish() of an integer's result
  switch (by_double ? Compute::Double : compute_for(from)) {
    case Compute::Float: r.start_integer = 0; return run_kind<float>(run, kind, r, view);
    case Compute::Double: return run_kind<double>(run, kind, r, view);
    case Compute::Integer: return run_kind<int64_t>(run, kind, r, view);
    case Compute::Unsigned: return run_kind<uint64_t>(run, kind, r, view);
  }
}

}  // namespace infopt::cuda
