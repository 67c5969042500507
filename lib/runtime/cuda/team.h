// Threads that work on one row together: a warp, or a block of whole warps. What they agree on is the same in every thread, and the same
// in every run.
#pragma once
#include "lib/runtime/cuda/element_memory.h"

namespace infopt::cuda {

template <class W> struct Plus {
  INFOPT_DEVICE W operator()(W a, W b) const { return a + b; }
};
/// NaN, where either has one.
template <class W> struct Larger {
  INFOPT_DEVICE W operator()(W a, W b) const { return b > a || b != b ? b : a; }
};

template <class V, class C> INFOPT_DEVICE V warp_combine(V v, C combine) {
  INFOPT_UNROLL for (int by = 16; by > 0; by /= 2) v = combine(v, __shfl_xor_sync(0xffffffffu, v, by));
  return v;
}

/// All the block's threads take part. The block has one dimension.
template <class V, class C> INFOPT_DEVICE V block_combine(V v, C combine, V identity) {
  __shared__ V parts[32];
  v = warp_combine(v, combine);
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5, warps = static_cast<int>(blockDim.x + 31) >> 5;
  if (lane == 0) parts[warp] = v;
  __syncthreads();
  v = warp_combine(lane < warps ? parts[lane] : identity, combine);
  __syncthreads();  // before the next use of `parts`
  return v;
}

template <bool kBlock, class V, class C> INFOPT_DEVICE V team_combine(V v, C combine, V identity) {
  if constexpr (kBlock) return block_combine(v, combine, identity);
  else return warp_combine(v, combine);
}

/// A thread's part of a row of n elements: fours, `lanes` fours apart. They may be kept in shared memory, where only this thread looks.
template <class W> struct RowPart {
  const void* data;
  int64_t begin, n;  ///< the row's first element
  W* cache;          ///< the row's own, aligned for fours; null: read again
  int lane, lanes;
  DType type;
  bool by_four;      ///< the row begins on a four's boundary and has whole fours

  INFOPT_DEVICE int first() const { return lane * 4; }
  INFOPT_DEVICE int64_t step() const { return static_cast<int64_t>(lanes) * 4; }
  INFOPT_DEVICE int count(int64_t i) const { return n - i < 4 ? static_cast<int>(n - i) : 4; }
  /// The elements from i on; those past the end are `beyond`.
  INFOPT_DEVICE void read(int64_t i, W (&v)[4], W beyond) const {
    if (by_four) return load_four(type, data, begin + i, v);
    const int left = count(i);
    INFOPT_UNROLL for (int k = 0; k < 4; ++k) v[k] = k < left ? load_one<W>(type, data, begin + i + k) : beyond;
  }
  INFOPT_DEVICE void keep(int64_t i, const W (&v)[4]) const {
    if (!cache) return;
    Four<W> four;
    INFOPT_UNROLL for (int k = 0; k < 4; ++k) four.v[k] = v[k];
    *reinterpret_cast<Four<W>*>(cache + i) = four;
  }
  /// What was kept, or the elements again.
  INFOPT_DEVICE void again(int64_t i, W (&v)[4], W beyond) const {
    if (!cache) return read(i, v, beyond);
    const Four<W> four = *reinterpret_cast<const Four<W>*>(cache + i);
    INFOPT_UNROLL for (int k = 0; k < 4; ++k) v[k] = four.v[k];
  }
};

/// How rows are given to teams.
struct RowPlan {
  int threads = 128;
  int lanes = 32;        ///< of a team: a warp, or the block
  int64_t blocks = 0;
  size_t shared = 0;     ///< bytes; 0 where a row is read again
  int64_t room = 0;      ///< elements of shared memory for each row
};

inline RowPlan plan_rows(int64_t rows, int64_t n, size_t element, bool cached) {
  RowPlan p;
  p.room = (n + 3) / 4 * 4;
  if (n > 1024) p.threads = p.lanes = n > 16384 ? 1024 : n > 4096 ? 512 : 256;
  const int64_t teams = p.threads / p.lanes;
  p.blocks = std::min<int64_t>((rows + teams - 1) / teams, 1 << 30);
  p.shared = static_cast<size_t>(p.room * teams) * element;
  if (!cached || p.shared > 96 * 1024) p.shared = 0;  // two blocks to a multiprocessor
  return p;
}

/// Whether rows of n elements can be read by fours.
inline bool rows_by_four(DType t, const void* data, int64_t n) {
  const size_t bits = bits_of(t);
  return n % 4 == 0 && bits >= 8 && reinterpret_cast<uintptr_t>(data) % std::min<size_t>(16, bits / 2) == 0;
}

}  // namespace infopt::cuda
