// TopK on the device. Elements become unsigned keys of the same order; blocks sort pieces of a line in shared memory and keep the first k of each,
// until one piece is left. Where k is a large part of a piece, whole lines are sorted in device memory.
#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"
#include "lib/runtime/cuda/element.h"
#include "lib/runtime/cuda/element_memory.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/moves.h"

namespace infopt::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kPiece = 2048;        ///< elements that a block sorts
constexpr int64_t kMostKept = kPiece / 4;  ///< of each piece: so every round leaves a quarter at most

/// The largest key is first; of equal ones the smallest index.
struct Entry {
  uint64_t key;
  int64_t index;
};
INFOPT_DEVICE bool goes_first(const Entry& a, const Entry& b) { return a.key != b.key ? a.key > b.key : a.index < b.index; }
INFOPT_DEVICE Entry nothing() { return {0, most_of<int64_t>()}; }

/// NaN after every number, both zeros equal.
INFOPT_DEVICE uint64_t key_of(float v) {
  const uint32_t bits = __float_as_uint(v == 0 ? 0.0f : v);
  return v != v ? ~0u : bits >> 31 ? ~bits : bits | 0x80000000u;
}
INFOPT_DEVICE uint64_t key_of(double v) {
  uint64_t bits;
  const double plain = v == 0 ? 0.0 : v;
  memcpy(&bits, &plain, sizeof bits);
  constexpr uint64_t sign = uint64_t{1} << 63;
  return v != v ? ~uint64_t{0} : bits & sign ? ~bits : bits | sign;
}
INFOPT_DEVICE uint64_t key_of(int64_t v) { return static_cast<uint64_t>(v) ^ uint64_t{1} << 63; }
INFOPT_DEVICE uint64_t key_of(uint64_t v) { return v; }

/// Lines [outer, n, inner] of the input.
struct Lines {
  const void* x;
  DType type;
  int64_t n, inner;
  bool largest;

  template <class W> INFOPT_DEVICE Entry at(int64_t line, int64_t i) const {
    const int64_t o = line / inner;
    uint64_t key = key_of(load_one<W>(type, x, (o * n + i) * inner + (line - o * inner)));
    if (!largest) key = (sizeof(W) == 4 ? 0xffffffffu : ~uint64_t{0}) - key;
    return {key, i};
  }
};

INFOPT_DEVICE void order_pair(Entry& a, Entry& b, bool first_in_front) {
  if (goes_first(a, b) == first_in_front) return;
  const Entry t = a;
  a = b, b = t;
}

/// Pair i of a bitonic network's stage: `width` is the length of the runs that get sorted, `apart` how far the pair's places are from one another.
struct Pair { int64_t a, b; bool first_in_front; };
INFOPT_DEVICE Pair pair_at(int64_t i, int64_t width, int64_t apart) {
  const int64_t a = (i / apart) * apart * 2 + i % apart;
  return {a, a + apart, (a & width) == 0};
}

/// A piece of `size` (a power of two) of a line's `count` entries, which are the line's elements or, where `from` isn't null, what the round before kept: its first
/// `keep` go to `to`, or, where that is null, are the result.
template <class W> __global__ void __launch_bounds__(kThreads) keep_first(const Lines lines, const Entry* from, int64_t count, int size, int64_t pieces, int64_t keep, Entry* to, int64_t* result) {
  Entry* entries = shared_memory<Entry>();
  const int64_t line = blockIdx.x / pieces, piece = blockIdx.x % pieces, first = piece * size;
  const int threads = static_cast<int>(blockDim.x), me = static_cast<int>(threadIdx.x);
  for (int i = me; i < size; i += threads) {
    const int64_t place = first + i;
    entries[i] = place >= count ? nothing() : from ? from[line * count + place] : lines.at<W>(line, place);
  }
  __syncthreads();
  for (int width = 2; width <= size; width *= 2)
    for (int apart = width / 2; apart > 0; apart /= 2) {
      for (int i = me; i < size / 2; i += threads) {
        const Pair p = pair_at(i, width == size ? 0 : width, apart);
        order_pair(entries[p.a], entries[p.b], p.first_in_front);
      }
      __syncthreads();
    }
  const int64_t o = line / lines.inner;
  for (int64_t i = me; i < keep; i += threads) {
    if (to) to[(line * pieces + piece) * keep + i] = entries[i];
    else result[(o * keep + i) * lines.inner + (line - o * lines.inner)] = entries[i].index;
  }
}

template <class W> __global__ void load_entries(const Lines lines, Entry* to, int64_t size, int64_t count) {
  for (int64_t e = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t line = e / size, i = e - line * size;
    to[e] = i < lines.n ? lines.at<W>(line, i) : nothing();
  }
}

__global__ void sort_stage(Entry* entries, int64_t size, int64_t width, int64_t apart, int64_t pairs) {
  for (int64_t e = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; e < pairs; e += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t line = e / (size / 2);
    const Pair p = pair_at(e - line * (size / 2), width == size ? 0 : width, apart);
    order_pair(entries[line * size + p.a], entries[line * size + p.b], p.first_in_front);
  }
}

__global__ void store_indices(const Entry* entries, int64_t size, int64_t keep, int64_t inner, int64_t count, int64_t* result) {
  for (int64_t e = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t line = e / keep, i = e - line * keep, o = line / inner;
    result[(o * keep + i) * inner + (line - o * inner)] = entries[line * size + i].index;
  }
}

/// y[outer, k, inner] = x[outer, index, inner].
template <class T> __global__ void pick(const T* x, const int64_t* indices, T* y, int64_t n, int64_t k, int64_t inner, int64_t count) {
  for (int64_t e = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += static_cast<int64_t>(gridDim.x) * kThreads)
    y[e] = x[(e / (k * inner) * n + indices[e]) * inner + e % inner];
}

int64_t power_of_two(int64_t v) { return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(v))); }

template <class W> void sort_lines(CudaContext& c, const Lines& lines, int64_t count, int64_t k, int64_t* result) {
  const int64_t size = power_of_two(lines.n), all = count * size;
  Tensor memory = c.scratch(DType::I64, {all, 2});
  auto* entries = reinterpret_cast<Entry*>(memory.mutable_raw());
  INFOPT_LAUNCH(c.stream(), load_entries<W>, {grid_for(all, kThreads)}, {kThreads}, 0, lines, entries, size, all);
  for (int64_t width = 2; width <= size; width *= 2)
    for (int64_t apart = width / 2; apart > 0; apart /= 2) INFOPT_LAUNCH(c.stream(), sort_stage, {grid_for(all / 2, kThreads)}, {kThreads}, 0, entries, size, width, apart, all / 2);
  INFOPT_LAUNCH(c.stream(), store_indices, {grid_for(count * k, kThreads)}, {kThreads}, 0, entries, size, k, lines.inner, count * k, result);
}

template <class W> void select(CudaContext& c, const Lines& lines, int64_t count, int64_t k, int64_t* result) {
  if (lines.n > kPiece && k > kMostKept) return sort_lines<W>(c, lines, count, k, result);
  Tensor kept;
  for (int64_t n = lines.n;;) {
    const int64_t size = std::max<int64_t>(2, power_of_two(std::min(n, kPiece))), pieces = blocks_for(n, size);
    const int64_t threads = std::clamp<int64_t>(size / 2, 32, kThreads);
    Tensor next = pieces > 1 ? c.scratch(DType::I64, {count * pieces * k, 2}) : Tensor();
    INFOPT_LAUNCH(c.stream(), keep_first<W>, {count * pieces}, {threads}, static_cast<size_t>(size) * sizeof(Entry), lines, kept.defined() ? reinterpret_cast<const Entry*>(kept.raw()) : nullptr, n,
                  static_cast<int>(size), pieces, k, next.defined() ? reinterpret_cast<Entry*>(next.mutable_raw()) : nullptr, result);
    if (pieces == 1) return;
    kept = next;
    n = pieces * k;
  }
}

void run_top_k(CudaContext& c, int64_t k, int64_t given, bool largest) {
  const Tensor& x = c.in(0);
  const int64_t axis = normal_axis(given, x.rank()), n = x.dim(axis);
  if (k < 0 || k > n) malformed("TopK of " + std::to_string(k) + " in a dimension of " + std::to_string(n));
  if (n > std::numeric_limits<int32_t>::max()) unsupported("TopK in a dimension of " + std::to_string(n));
  Shape shape = x.shape();
  shape[at(axis)] = k;
  Tensor values = c.out(0, x.dtype(), shape), indices = c.wanted(1) ? c.out(1, DType::I64, shape) : c.scratch(DType::I64, shape);
  if (values.size() == 0) return;
  const int64_t inner = product(shape, at(axis) + 1, shape.size()), count = values.size() / k;
  if (count * blocks_for(n, kPiece) > std::numeric_limits<int32_t>::max()) unsupported("TopK of " + std::to_string(count) + " lines on CUDA");
  const Lines lines{x.raw(), x.dtype(), n, inner, largest};
  auto* result = indices.mutable_data<int64_t>();
  switch (compute_for(x.dtype())) {
    case Compute::Float: select<float>(c, lines, count, k, result); break;
    case Compute::Double: select<double>(c, lines, count, k, result); break;
    case Compute::Integer: select<int64_t>(c, lines, count, k, result); break;
    case Compute::Unsigned: select<uint64_t>(c, lines, count, k, result); break;
  }
  with_element(element_bytes(x.dtype()), [&](auto zero) {
    using T = decltype(zero);
    INFOPT_LAUNCH(c.stream(), pick<T>, {grid_for(values.size(), kThreads)}, {kThreads}, 0, reinterpret_cast<const T*>(x.raw()), result, reinterpret_cast<T*>(values.mutable_raw()), n, k, inner, values.size());
  });
}

std::unique_ptr<Kernel> make_by_attribute(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  return make_cuda_kernel([k = spec.node.i("k", -1), axis = spec.node.i("axis", -1)](CudaContext& c) { run_top_k(c, k, axis, true); }, "pieces sorted in shared memory");
}

std::unique_ptr<Kernel> make_by_input(const KernelSpec& spec) {
  need_whole_bytes(spec, {0});
  return make_cuda_kernel([axis = spec.node.i("axis", -1), largest = spec.node.i("largest", 1) != 0](CudaContext& c) { run_top_k(c, to_scalar<int64_t>(c.host(1)), axis, largest); },
                          "pieces sorted in shared memory");
}

}  // namespace

std::vector<CudaOp> cuda_order() { return {{.name = "TopK", .until = 9, .make = &make_by_attribute}, {.name = "TopK", .since = 10, .make = &make_by_input}}; }

}  // namespace infopt::cuda
