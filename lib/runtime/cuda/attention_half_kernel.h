// Attention of 16-bit floats by tensor cores: each warp has 16 queries; their scores go from one product's result to the other's operand in
// registers, and the next tile of keys and values comes from global memory while one is multiplied. Codes of 8 bits come so, too; each
// thread turns those that it fetched into the tile that is multiplied.
#pragma once
#include "lib/runtime/cuda/attention_scores.h"
#include "lib/runtime/cuda/element_memory.h"
#include "lib/runtime/cuda/lanes.h"
#include "lib/runtime/cuda/launch.h"
#include "lib/runtime/cuda/tensor_core.h"

namespace infopt::cuda {
namespace {

constexpr int kWarps = 4, kRows = 16 * kWarps, kKeys = 64, kThreads = 32 * kWarps;
constexpr float kLog2e = 1.44269504f;

template <class T> INFOPT_DEVICE uint32_t packed(float low, float high) {
  T a, b;
  store_float(a, low);
  store_float(b, high);
  return static_cast<uint32_t>(a.bits) | static_cast<uint32_t>(b.bits) << 16;
}

/// Starts copying 64 rows of D elements; zeros where `from` has none. Rows in shared memory are 16 bytes longer, so that they begin in other banks.
template <int D> INFOPT_DEVICE void copy_rows(const uint16_t* from, int64_t row, int64_t rows, int64_t step, int64_t columns, uint16_t* to) {
  constexpr int kPacks = D / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPacks; i += kThreads) {
    const int r = i / kPacks, c = i % kPacks * 8;
    const bool inside = row + r < rows && c < columns;
    copy_async<16>(to + r * (D + 8) + c, inside ? from + (row + r) * step + c : from, inside ? 16 : 0);
  }
}

/// The same for rows of D codes; they lie densely in shared memory, where only the thread that copied them looks.
template <int D> INFOPT_DEVICE void copy_codes(const uint8_t* from, int64_t row, int64_t rows, int64_t step, int64_t columns, uint8_t* to) {
  constexpr int kPacks = D / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPacks; i += kThreads) {
    const int r = i / kPacks, c = i % kPacks * 8;
    const bool inside = row + r < rows && c < columns;
    copy_async<8>(to + i * 8, inside ? from + (row + r) * step + c : from, inside ? 8 : 0);
  }
}

/// What the thread's own copied codes mean, as rows of T; zeros where there are none.
template <class T, int D> INFOPT_DEVICE void decode_rows(const uint8_t* from, const HeadCodes& codes, int64_t first_scale, int64_t row, int64_t rows, int64_t columns, uint16_t* to) {
  constexpr int kPacks = D / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPacks; i += kThreads) {
    const int r = i / kPacks, c = i % kPacks * 8;
    Lanes<uint16_t, 8> out = {};
    if (row + r < rows && c < columns) {
      const Lanes<uint8_t, 8> in = load_lanes<8>(from + i * 8);
      int64_t at = first_scale + (row + r) * codes.at.row + c * codes.at.column;
      float scale = codes.scales[at], zero = codes.zeros[at];
      INFOPT_UNROLL for (int k = 0; k < 8; ++k) {
        out.v[k] = meaning<T>(codes.type, in.v[k], scale, zero).bits;
        if (codes.at.column == 0 || k == 7) continue;
        at += codes.at.column;
        scale = codes.scales[at], zero = codes.zeros[at];
      }
    }
    store_lanes<8>(to + r * (D + 8) + c, out);
  }
}

/// A block: 64 queries of one head; depth and value_depth of at most D. `Coded`: keys and values are codes.
template <class T, int D, bool Coded> __global__ void __launch_bounds__(kThreads) attend_tiles(AttentionTask t) {
  constexpr int kSteps = D / 16, kTile = kKeys * (D + 8), kStage = Coded ? 0 : 2 * kTile, kCodes = kKeys * D;
  auto* shared = shared_memory<uint16_t>();  // two stages of K and V, or one and behind it two of their codes; at first Q in the last stage's place
  [[maybe_unused]] auto* staged = reinterpret_cast<uint8_t*>(shared + 2 * kTile);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32, g = lane / 4, pair = lane % 4 * 2;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRows;
  for (int64_t head = blockIdx.y; head < t.heads; head += gridDim.y) {
    const HeadPlace h = place_of(t, head);
    const auto* q = static_cast<const uint16_t*>(t.q.data) + h.q;
    const int64_t last = first + kRows < t.queries ? first + kRows - 1 : t.queries - 1;
    const KeyRange all = keys_of_all(t, h, first, last);
    const int64_t begin = all.begin / kKeys * kKeys, tiles = all.end > begin ? (all.end - begin + kKeys - 1) / kKeys : 0;
    const auto fetch = [&](int64_t tile) {
      const int64_t row = begin + tile * kKeys;
      if constexpr (Coded) {
        uint8_t* to = staged + tile % 2 * 2 * kCodes;
        copy_codes<D>(static_cast<const uint8_t*>(t.k.data) + h.k, row, all.end, t.k.row, t.depth, to);
        copy_codes<D>(static_cast<const uint8_t*>(t.v.data) + h.v, row, all.end, t.v.row, t.value_depth, to + kCodes);
      } else {
        uint16_t* to = shared + tile % 2 * kStage;
        copy_rows<D>(static_cast<const uint16_t*>(t.k.data) + h.k, row, all.end, t.k.row, t.depth, to);
        copy_rows<D>(static_cast<const uint16_t*>(t.v.data) + h.v, row, all.end, t.v.row, t.value_depth, to + kTile);
      }
      commit_copies();
    };
    uint32_t queries[kSteps][4];
    copy_rows<D>(q, first, t.queries, t.q.row, t.depth, shared + kStage);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    INFOPT_UNROLL for (int s = 0; s < kSteps; ++s) load_matrices(queries[s], shared + kStage + (warp * 16 + lane % 16) * (D + 8) + s * 16 + lane / 16 * 8);
    __syncthreads();
    if (tiles > 0) fetch(0);

    float out[D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
    const int64_t query[2] = {first + warp * 16 + g, first + warp * 16 + g + 8};
    const KeyRange ranges[2] = {keys_of(t, h, query[0]), keys_of(t, h, query[1])};
    for (int64_t tile = 0; tile < tiles; ++tile) {
      if (tile + 1 < tiles) {
        fetch(tile + 1);
        wait_copies<1>();
      } else {
        wait_copies<0>();
      }
      if constexpr (Coded) {
        const uint8_t* from = staged + tile % 2 * 2 * kCodes;
        decode_rows<T, D>(from, t.k_codes, h.k_scale, begin + tile * kKeys, all.end, t.depth, shared);
        decode_rows<T, D>(from + kCodes, t.v_codes, h.v_scale, begin + tile * kKeys, all.end, t.value_depth, shared + kTile);
      }
      __syncthreads();
      const uint16_t* keys = shared + tile % 2 * kStage;
      const uint16_t* values = keys + kTile;
      float s[kKeys / 8][4] = {};
      INFOPT_UNROLL for (int n = 0; n < kKeys / 16; ++n)
        INFOPT_UNROLL for (int step = 0; step < kSteps; ++step) {
          uint32_t b[4];
          load_matrices(b, keys + (n * 16 + lane / 16 * 8 + lane % 8) * (D + 8) + step * 16 + lane / 8 % 2 * 8);
          mma_floats<T>(s[2 * n], queries[step], b[0], b[1]);
          mma_floats<T>(s[2 * n + 1], queries[step], b[2], b[3]);
        }
      const int64_t key = begin + tile * kKeys + pair;
      const bool plain = !t.mask.data && !t.keep.data && t.softcap == 0 && key - pair >= all.begin && key - pair + kKeys <= t.keys && !t.bounded;
      INFOPT_UNROLL for (int r = 0; r < 2; ++r) {
        float high = -INFINITY;
        INFOPT_UNROLL for (int n = 0; n < kKeys / 8; ++n)
          INFOPT_UNROLL for (int i = 2 * r; i < 2 * r + 2; ++i) {
            if (plain) s[n][i] *= t.scale;
            else s[n][i] = query[r] < t.queries ? finished_score(t, h, query[r], key + n * 8 + i % 2, ranges[r], s[n][i]) : -INFINITY;
            high = fmaxf(high, s[n][i]);
          }
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2));
        const float now = fmaxf(top[r], high), shift = now == -INFINITY ? 0.0f : now, decay = exp2f((top[r] - shift) * kLog2e);
        float sum = 0;
        INFOPT_UNROLL for (int n = 0; n < kKeys / 8; ++n)
          INFOPT_UNROLL for (int i = 2 * r; i < 2 * r + 2; ++i) {
            s[n][i] = exp2f((s[n][i] - shift) * kLog2e);
            sum += s[n][i];
          }
        total[r] = total[r] * decay + sum;  // of this lane's keys; the lanes of a row are added at the end
        top[r] = now;
        INFOPT_UNROLL for (int n = 0; n < D / 8; ++n) out[n][2 * r] *= decay, out[n][2 * r + 1] *= decay;
      }
      INFOPT_UNROLL for (int step = 0; step < kKeys / 16; ++step) {
        const float(&low)[4] = s[2 * step];
        const float(&up)[4] = s[2 * step + 1];
        const uint32_t weights[4] = {packed<T>(low[0], low[1]), packed<T>(low[2], low[3]), packed<T>(up[0], up[1]), packed<T>(up[2], up[3])};
        INFOPT_UNROLL for (int n = 0; n < D / 16; ++n) {
          uint32_t b[4];
          load_transposed_matrices(b, values + (step * 16 + lane / 8 % 2 * 8 + lane % 8) * (D + 8) + n * 16 + lane / 16 * 8);
          mma_floats<T>(out[2 * n], weights, b[0], b[1]);
          mma_floats<T>(out[2 * n + 1], weights, b[2], b[3]);
        }
      }
      __syncthreads();
    }

    T* to = const_cast<T*>(static_cast<const T*>(t.out.data)) + h.out;
    INFOPT_UNROLL for (int r = 0; r < 2; ++r) {
      total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
      total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
      if (query[r] >= t.queries) continue;
      const bool zero = (t.masked_is_zero && total[r] == 0) || (t.nan_is_zero && !(total[r] > 0));
      const float by = 1.0f / total[r];
      INFOPT_UNROLL for (int n = 0; n < D / 8; ++n)
        INFOPT_UNROLL for (int i = 0; i < 2; ++i) {
          const int64_t column = n * 8 + pair + i;
          if (column < t.value_depth) store_float(to[query[r] * t.out.row + column * t.out.column], zero ? 0.0f : out[n][2 * r + i] * by);
        }
    }
  }
}

template <class T, int D, bool Coded> void launch(Stream& stream, const AttentionTask& t) {
  constexpr size_t kShared = Coded ? 2 * kKeys * (D + 8) * sizeof(uint16_t) + 4 * kKeys * D : 4 * kKeys * (D + 8) * sizeof(uint16_t);
  INFOPT_LAUNCH(stream, (attend_tiles<T, D, Coded>), {blocks_for(t.queries, kRows), t.heads < 65535 ? t.heads : 65535}, kThreads, kShared, t);
}

template <class T, bool Coded> void attend_of(Stream& stream, const AttentionTask& t) {
  const int64_t depth = t.depth > t.value_depth ? t.depth : t.value_depth;
  if (depth <= 32) launch<T, 32, Coded>(stream, t);
  else if (depth <= 64) launch<T, 64, Coded>(stream, t);
  else launch<T, 128, Coded>(stream, t);
}

template <bool Coded> void attend_tiles_as(Stream& stream, DType type, const AttentionTask& task) {
  if (type == DType::F16) attend_of<half, Coded>(stream, task);
  else attend_of<bfloat16, Coded>(stream, task);
}

}  // namespace
}  // namespace infopt::cuda
