// The kernel of Int8Gemm. y[m, n] = end(Σ over k of a[m, k]·b[n, k]): rows m are output pixels, k runs over the window's taps and the channels
// of each. Both operands come to shared memory by cp.async in pieces of 16 bytes, some steps ahead; a table says for every piece which tap and
// channel it is, so that a needs no copy of its windows. What lies outside of the image reads as the zero point.
#pragma once
#include "lib/runtime/cuda/int8_finish.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/tensor_core.h"

namespace infopt::cuda {

/// A tap's shift along the three axes and its channel; `z` is kOutside behind the last.
struct __align__(16) Int8Tap { int z, y, x, channel; };
constexpr int kOutside = -(1 << 30);

struct Int8Product {
  const uint8_t* a;
  const int8_t* b;
  const Int8Tap* taps;
  const uint8_t* pad;         // 16 bytes of what padding reads as, then 16 zeros for what is behind the last tap
  int64_t rows, image_bytes;
  int64_t row_bytes;          // of b
  int64_t all_columns;        // of y
  int columns, chunks;        // of a group; pieces of 16 bytes along k
  int pixel_bytes, group_bytes;
  int in0, in1, in2, out0, out1, out2, stride0, stride1, stride2, before0, before1, before2;
  int tiles_n;
  int64_t tiles_m;            // of a group
  int vector;                 // 16, 4 or 1 codes at a time can be stored
  Int8End end;
  void* y;
};

/// Tile sizes. Warps share the tile as RowWarps × ColumnWarps; DepthWarps of them take 64 bytes of k each and add their sums at last.
template <int Rows, int Columns, int RowWarps, int ColumnWarps, int DepthWarps, int Stages, int Blocks> struct Int8Tile {
  static constexpr int kRows = Rows, kColumns = Columns, kRowWarps = RowWarps, kColumnWarps = ColumnWarps, kDepth = DepthWarps, kStages = Stages, kBlocks = Blocks;
  static constexpr int kThreads = 32 * RowWarps * ColumnWarps * DepthWarps;
  static constexpr int kPieces = 4 * DepthWarps;  // of 16 bytes, along k in a step
  static constexpr int kLoadRows = kThreads / kPieces;
  static constexpr int kA = (Rows + kLoadRows - 1) / kLoadRows, kB = Columns / kLoadRows;
  static constexpr int kRowParts = Rows / RowWarps / 16, kColumnParts = Columns / ColumnWarps / 8;
  static constexpr int kStageBytes = (Rows + Columns) * 64 * DepthWarps;
  static constexpr size_t kShared = static_cast<size_t>(kStageBytes) * Stages;
  static_assert(Rows % kLoadRows == 0 && Columns % kLoadRows == 0 && kColumnParts % 2 == 0);
  static_assert(kShared >= Rows * (Columns + 16) && kShared >= static_cast<size_t>(kDepth - 1) * 32 * 4 * kRowParts * (kColumnParts + 1) * 4);
};
using Int8LargeTile = Int8Tile<128, 128, 2, 4, 1, 4, 2>;
using Int8MediumTile = Int8Tile<64, 64, 2, 2, 1, 4, 4>;
using Int8FlatTile = Int8Tile<16, 32, 1, 1, 4, 4, 4>;

/// The place of a piece in a tile of rows of 64 bytes: eight rows' pieces of one k lie in different banks.
INFOPT_DEVICE int piece_place(int row, int piece) { return row * 64 + ((piece ^ (row >> 1)) & 3) * 16; }

template <class T, bool Unsigned, int Granule, bool WeightZeros> struct Int8Multiplier {
  const Int8Product& p;
  uint8_t* const shared;
  int column0;       // of the group
  int64_t row0;
  const uint8_t* image[T::kA];
  int z[T::kA], y[T::kA], x[T::kA];
  const int8_t* weights[T::kB];
  Int8Tap ahead;     // of the next step, for pieces that are one tap's
  int sums[T::kRowParts][T::kColumnParts][4];
  int row_sums[WeightZeros ? T::kRowParts : 1][4];

  INFOPT_DEVICE static int thread() { return static_cast<int>(threadIdx.x); }
  INFOPT_DEVICE static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  INFOPT_DEVICE static int warp() { return static_cast<int>(threadIdx.x) / 32; }
  INFOPT_DEVICE static int depth_warp() { return warp() / (T::kRowWarps * T::kColumnWarps); }
  INFOPT_DEVICE static int first_row() { return warp() / T::kColumnWarps % T::kRowWarps * (T::kRowParts * 16); }
  INFOPT_DEVICE static int first_column() { return warp() % T::kColumnWarps * (T::kColumnParts * 8); }

  INFOPT_DEVICE void begin(int64_t group) {
    const int64_t area = static_cast<int64_t>(p.out1) * p.out2, volume = area * p.out0;
INFOPT_UNROLL
    for (int i = 0; i < T::kA; ++i) {
      const int64_t row = row0 + thread() / T::kPieces + i * T::kLoadRows;
      z[i] = kOutside;
      y[i] = x[i] = 0;
      image[i] = p.a;
      if (row >= p.rows) continue;
      const int64_t n = row / volume;
      const int pixel = static_cast<int>(row - n * volume), line = pixel / p.out2;
      image[i] = p.a + n * p.image_bytes + group * p.group_bytes;
      z[i] = line / p.out1 * p.stride0 - p.before0;
      y[i] = line % p.out1 * p.stride1 - p.before1;
      x[i] = (pixel - line * p.out2) * p.stride2 - p.before2;
    }
INFOPT_UNROLL
    for (int i = 0; i < T::kB; ++i) {
      const int column = column0 + thread() / T::kPieces + i * T::kLoadRows;
      weights[i] = p.b + (group * p.columns + (column < p.columns ? column : p.columns - 1)) * p.row_bytes;
    }
INFOPT_UNROLL
    for (int r = 0; r < T::kRowParts; ++r) {
INFOPT_UNROLL
      for (int c = 0; c < T::kColumnParts; ++c)
INFOPT_UNROLL
        for (int i = 0; i < 4; ++i) sums[r][c][i] = 0;
      if constexpr (WeightZeros)
INFOPT_UNROLL
        for (int i = 0; i < 4; ++i) row_sums[r][i] = 0;
    }
    if constexpr (Granule == 16) ahead = p.taps[thread() % T::kPieces];
  }

  INFOPT_DEVICE const uint8_t* source(int i, const Int8Tap& tap) const {
    const int iz = z[i] + tap.z, iy = y[i] + tap.y, ix = x[i] + tap.x;
    if (static_cast<unsigned>(iz) >= static_cast<unsigned>(p.in0) || static_cast<unsigned>(iy) >= static_cast<unsigned>(p.in1) || static_cast<unsigned>(ix) >= static_cast<unsigned>(p.in2)) return tap.z == kOutside ? p.pad + 16 : p.pad;
    return image[i] + static_cast<int64_t>((iz * p.in1 + iy) * p.in2 + ix) * p.pixel_bytes + tap.channel;
  }

  /// Starts the copies of step `step` of k.
  INFOPT_DEVICE void load(int step) {
    uint8_t* stage = shared + step % T::kStages * T::kStageBytes;
    const int piece = thread() % T::kPieces, row = thread() / T::kPieces, chunk = step * T::kPieces + piece, slab = piece / 4;
    uint8_t* a = stage + slab * T::kRows * 64;
    uint8_t* b = stage + T::kRows * 64 * T::kDepth + slab * T::kColumns * 64;
    if constexpr (Granule == 16) {
      const Int8Tap tap = ahead;
      ahead = p.taps[chunk + T::kPieces];  // the table has a step more
INFOPT_UNROLL
      for (int i = 0; i < T::kA; ++i) copy_async<16>(a + piece_place(row + i * T::kLoadRows, piece & 3), source(i, tap));
    } else {
INFOPT_UNROLL
      for (int j = 0; j < 4; ++j) {
        const Int8Tap tap = p.taps[4 * chunk + j];
INFOPT_UNROLL
        for (int i = 0; i < T::kA; ++i) copy_async<4>(a + piece_place(row + i * T::kLoadRows, piece & 3) + 4 * j, source(i, tap));
      }
    }
INFOPT_UNROLL
    for (int i = 0; i < T::kB; ++i) {
      const bool there = chunk < p.chunks;
      copy_async<16>(b + piece_place(row + i * T::kLoadRows, piece & 3), there ? weights[i] + 16 * static_cast<int64_t>(chunk) : weights[i], there ? 16 : 0);
    }
  }

  INFOPT_DEVICE void multiply(int step) {
    const uint8_t* stage = shared + step % T::kStages * T::kStageBytes;
    const uint8_t* a = stage + depth_warp() * T::kRows * 64;
    const uint8_t* b = stage + T::kRows * 64 * T::kDepth + depth_warp() * T::kColumns * 64;
INFOPT_UNROLL
    for (int half = 0; half < 2; ++half) {
      uint32_t left[T::kRowParts][4], right[T::kColumnParts / 2][4];
INFOPT_UNROLL
      for (int r = 0; r < T::kRowParts; ++r) load_matrices(left[r], a + piece_place(first_row() + r * 16 + lane() % 16, 2 * half + lane() / 16));
INFOPT_UNROLL
      for (int c = 0; c < T::kColumnParts / 2; ++c)
        load_matrices(right[c], b + piece_place(first_column() + c * 16 + lane() % 8 + lane() / 16 * 8, 2 * half + lane() / 8 % 2));
INFOPT_UNROLL
      for (int r = 0; r < T::kRowParts; ++r) {
INFOPT_UNROLL
        for (int c = 0; c < T::kColumnParts; ++c) mma_codes<Unsigned>(sums[r][c], left[r], right[c / 2][c % 2 * 2], right[c / 2][c % 2 * 2 + 1]);
        if constexpr (WeightZeros) mma_codes<Unsigned>(row_sums[r], left[r], 0x01010101u, 0x01010101u);
      }
    }
  }

  INFOPT_DEVICE void run() {
    const int steps = (p.chunks + T::kPieces - 1) / T::kPieces;
INFOPT_UNROLL
    for (int s = 0; s < T::kStages - 1; ++s) {
      if (s < steps) load(s);
      commit_copies();
    }
    for (int s = 0; s < steps; ++s) {
      wait_copies<T::kStages - 2>();
      __syncthreads();
      if (s + T::kStages - 1 < steps) load(s + T::kStages - 1);
      commit_copies();
      multiply(s);
    }
    wait_copies<0>();
    __syncthreads();
    if constexpr (T::kDepth > 1) add_depths();
  }

  /// The first depth's warps get everybody's sums.
  INFOPT_DEVICE void add_depths() {
    constexpr int kSums = 4 * T::kRowParts * (T::kColumnParts + 1);
    auto* all = reinterpret_cast<int*>(shared);
    if (depth_warp() > 0) {
      int* mine = all + static_cast<int64_t>(warp() - T::kRowWarps * T::kColumnWarps) * kSums * 32 + lane();
      each([&](int& v, int i) { mine[i * 32] = v; });
    }
    __syncthreads();
    if (depth_warp() == 0)
      for (int d = 1; d < T::kDepth; ++d) {
        const int* theirs = all + static_cast<int64_t>((d - 1) * T::kRowWarps * T::kColumnWarps + warp()) * kSums * 32 + lane();
        each([&](int& v, int i) { v = wrapped_add(v, theirs[i * 32]); });
      }
    __syncthreads();
  }
  template <class F> INFOPT_DEVICE void each(F&& f) {
INFOPT_UNROLL
    for (int r = 0; r < T::kRowParts; ++r) {
INFOPT_UNROLL
      for (int c = 0; c < T::kColumnParts; ++c)
INFOPT_UNROLL
        for (int i = 0; i < 4; ++i) f(sums[r][c][i], (r * (T::kColumnParts + 1) + c) * 4 + i);
      if constexpr (WeightZeros)
INFOPT_UNROLL
        for (int i = 0; i < 4; ++i) f(row_sums[r][i], (r * (T::kColumnParts + 1) + T::kColumnParts) * 4 + i);
    }
  }

  INFOPT_DEVICE void finish(int64_t group) {
    const Int8End& e = p.end;
    __shared__ uint8_t table[256];
    if (e.kind == Int8End::Codes && e.table)
      for (int i = thread(); i < 256; i += T::kThreads) table[i] = e.table[i];
    if (depth_warp() == 0) {
INFOPT_UNROLL
      for (int c = 0; c < T::kColumnParts; ++c) {
        const int local = first_column() + c * 8 + lane() % 4 * 2, n = column0 + local;
        const bool first = n < p.columns, second = n + 1 < p.columns;
        const int64_t column = group * p.columns + n;
        const Int8Column one = first ? load_column(e, column) : Int8Column{}, two = second ? load_column(e, column + 1) : Int8Column{};
INFOPT_UNROLL
        for (int r = 0; r < T::kRowParts; ++r)
INFOPT_UNROLL
          for (int half = 0; half < 2; ++half) {
            const int local_row = first_row() + r * 16 + half * 8 + lane() / 4;
            int a = sums[r][c][2 * half], b = sums[r][c][2 * half + 1];
            if constexpr (WeightZeros) {
              a = wrapped_add(a, wrapped_multiply(-one.weight_zero, row_sums[r][2 * half]));
              b = wrapped_add(b, wrapped_multiply(-two.weight_zero, row_sums[r][2 * half]));
            }
            if (e.kind == Int8End::Codes) {
              const uint32_t pair = first_code(e, one, a) | first_code(e, two, b) << 8;
              *reinterpret_cast<uint16_t*>(shared + local_row * (T::kColumns + 16) + local) = static_cast<uint16_t>(pair);
            } else if (row0 + local_row < p.rows) {
              store_words(e, (row0 + local_row) * p.all_columns + column, one, two, a, b, first, second);
            }
          }
      }
    }
    if (e.kind != Int8End::Codes) return;
    __syncthreads();
    if (p.vector == 16) store_codes<16>(group, table);
    else if (p.vector == 4) store_codes<4>(group, table);
    else store_codes<1>(group, table);
  }

  INFOPT_DEVICE void store_words(const Int8End& e, int64_t at, const Int8Column& one, const Int8Column& two, int a, int b, bool first, bool second) const {
    const bool pair = second && p.all_columns % 2 == 0 && at % 2 == 0;
    if (e.kind == Int8End::Int32) {
      int* to = static_cast<int*>(p.y) + at;
      if (pair) *reinterpret_cast<int2*>(to) = int2{biased(one, a), biased(two, b)};
      else {
        if (first) to[0] = biased(one, a);
        if (second) to[1] = biased(two, b);
      }
      return;
    }
    float* to = static_cast<float*>(p.y) + at;
    if (pair) *reinterpret_cast<float2*>(to) = float2{with_residual(e, scaled(e, one, a), at), with_residual(e, scaled(e, two, b), at + 1)};
    else {
      if (first) to[0] = with_residual(e, scaled(e, one, a), at);
      if (second) to[1] = with_residual(e, scaled(e, two, b), at + 1);
    }
  }

  /// The tile's codes from shared memory, with residual and table, in pieces of V bytes.
  template <int V> INFOPT_DEVICE void store_codes(int64_t group, const uint8_t* table) const {
    using Piece = std::conditional_t<V == 16, uint4, std::conditional_t<V == 4, uint32_t, uint8_t>>;
    const Int8End& e = p.end;
    constexpr int kAcross = T::kColumns / V;
    for (int i = thread(); i < T::kRows * kAcross; i += T::kThreads) {
      const int r = i / kAcross, c = i % kAcross * V;
      const int64_t row = row0 + r;
      if (row >= p.rows || column0 + c >= p.columns) continue;
      const int64_t at = row * p.all_columns + group * p.columns + column0 + c;
      Piece q = *reinterpret_cast<const Piece*>(shared + r * (T::kColumns + 16) + c), other{};
      if (e.residual) other = *reinterpret_cast<const Piece*>(static_cast<const uint8_t*>(e.residual_data) + at);
      if (e.residual || e.table) {
        if constexpr (V == 16) {
          q.x = four_codes(table, q.x, other.x);
          q.y = four_codes(table, q.y, other.y);
          q.z = four_codes(table, q.z, other.z);
          q.w = four_codes(table, q.w, other.w);
        } else if constexpr (V == 4) {
          q = four_codes(table, q, other);
        } else {
          q = static_cast<uint8_t>(last_code(e, table, q, other));
        }
      }
      *reinterpret_cast<Piece*>(static_cast<uint8_t*>(p.y) + at) = q;
    }
  }
  INFOPT_DEVICE uint32_t four_codes(const uint8_t* table, uint32_t q, uint32_t r) const {
    uint32_t out = 0;
INFOPT_UNROLL
    for (int i = 0; i < 32; i += 8) out |= last_code(p.end, table, q >> i & 255u, r >> i & 255u) << i;
    return out;
  }
};

template <class T, bool Unsigned, int Granule, bool WeightZeros> __global__ void __launch_bounds__(T::kThreads, T::kBlocks) multiply_codes(const Int8Product p) {
  // Bands of eight tiles of rows, in which tiles that run at the same time share their operands.
  const int64_t tiles = p.tiles_m * p.tiles_n, group = blockIdx.x / tiles, tile = blockIdx.x - group * tiles;
  const int64_t band = tile / (8 * p.tiles_n), within = tile - band * 8 * p.tiles_n, left = p.tiles_m - band * 8, rows = left < 8 ? left : 8;
  Int8Multiplier<T, Unsigned, Granule, WeightZeros> m{p, shared_memory<uint8_t>()};
  m.row0 = (band * 8 + within % rows) * T::kRows;
  m.column0 = static_cast<int>(within / rows) * T::kColumns;
  m.begin(group);
  m.run();
  m.finish(group);
}

template <class T, bool Unsigned, int Granule> void launch_zeros(Stream& stream, const Int8Product& p, int64_t groups) {
  if (p.end.weight_zero) INFOPT_LAUNCH(stream, (multiply_codes<T, Unsigned, Granule, true>), {p.tiles_m * p.tiles_n * groups}, {T::kThreads}, T::kShared, p);
  else INFOPT_LAUNCH(stream, (multiply_codes<T, Unsigned, Granule, false>), {p.tiles_m * p.tiles_n * groups}, {T::kThreads}, T::kShared, p);
}

/// All kernels for codes of one sign.
template <bool Unsigned> void launch_int8_product(Stream& stream, Int8Product p, int64_t groups, int64_t granule) {
  const auto cut = [&](int64_t rows, int64_t columns) {
    p.tiles_n = static_cast<int>(blocks_for(p.columns, columns));
    p.tiles_m = blocks_for(p.rows, rows);
    return p.tiles_n * p.tiles_m * groups;
  };
  const auto run = [&](auto tile) {
    using T = decltype(tile);
    cut(T::kRows, T::kColumns);
    if (granule == 16) launch_zeros<T, Unsigned, 16>(stream, p, groups);
    else launch_zeros<T, Unsigned, 4>(stream, p, groups);
  };
  constexpr int64_t kProcessors = 132;  // enough blocks for a large GPU, or the tile is too large
  if (p.columns > 64 && cut(Int8LargeTile::kRows, Int8LargeTile::kColumns) >= kProcessors) run(Int8LargeTile{});
  else if (p.rows > 32 && (p.chunks < 16 || cut(Int8MediumTile::kRows, Int8MediumTile::kColumns) >= kProcessors)) run(Int8MediumTile{});
  else run(Int8FlatTile{});
}
void launch_unsigned_product(Stream& stream, const Int8Product& p, int64_t groups, int64_t granule);
void launch_signed_product(Stream& stream, const Int8Product& p, int64_t groups, int64_t granule);

}  // namespace infopt::cuda
