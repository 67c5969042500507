// Attention in float32 by fused multiply-adds, for every type, stride and depth.
#pragma once
#include "lib/runtime/cuda/attention_scores.h"
#include "lib/runtime/cuda/element_memory.h"
#include "lib/runtime/cuda/launch.h"

namespace infopt::cuda {
namespace {

constexpr int kSide = 16, kKeys = 64, kDepth = 32, kValueKeys = 32;  // threads of a row or column; keys of a tile; depth and keys at a time
constexpr int kChunkRow = kDepth + 4, kScoreRow = kKeys + 4;         // in shared memory: rows that begin in other banks

/// The largest, or the sum, of what the 16 threads of a row hold.
INFOPT_DEVICE float row_max(float v) {
  for (int by = kSide / 2; by > 0; by /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, by));
  return v;
}
INFOPT_DEVICE float row_sum(float v) {
  for (int by = kSide / 2; by > 0; by /= 2) v += __shfl_xor_sync(0xffffffffu, v, by);
  return v;
}

/// `rows` × `columns` elements from (row, column) on, zeros outside of [0, row_end) × [0, column_end).
template <class T, int Rows, int Columns, int RowStride>
INFOPT_DEVICE void load_block(const T* from, int64_t row, int64_t column, int64_t row_end, int64_t column_end, int64_t row_step, int64_t column_step, float* to) {
  const int thread = static_cast<int>(threadIdx.x);
  const bool down = row_step == 1 && column_step != 1;  // threads follow what lies together
  for (int i = thread; i < Rows * Columns; i += kSide * kSide) {
    const int r = down ? i % Rows : i / Columns, c = down ? i / Rows : i % Columns;
    const bool inside = row + r < row_end && column + c < column_end;
    to[r * RowStride + c] = inside ? load_float(from[(row + r) * row_step + (column + c) * column_step]) : 0.0f;
  }
}

/// The same of an operand of bytes: what they mean.
template <class T, int Rows, int Columns, int RowStride>
INFOPT_DEVICE void decode_block(const HeadMatrix& m, int64_t first, const HeadCodes& codes, int64_t first_scale, int64_t row, int64_t column, int64_t row_end, int64_t column_end, float* to) {
  const int thread = static_cast<int>(threadIdx.x);
  const bool down = m.row == 1 && m.column != 1;
  const auto* from = static_cast<const uint8_t*>(m.data) + first;
  for (int i = thread; i < Rows * Columns; i += kSide * kSide) {
    const int r = down ? i % Rows : i / Columns, c = down ? i / Rows : i % Columns;
    float v = 0.0f;
    if (row + r < row_end && column + c < column_end) {
      const int64_t at = first_scale + (row + r) * codes.at.row + (column + c) * codes.at.column;
      v = load_float(meaning<T>(codes.type, from[(row + r) * m.row + (column + c) * m.column], codes.scales[at], codes.zeros[at]));
    }
    to[r * RowStride + c] = v;
  }
}

INFOPT_DEVICE float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }

/// A block: 16·R queries of one head, and 64·C of its value columns. Thread (y, x) has the queries y + 16r, the keys x + 16j of a tile, and
/// the value columns 4x + 64c + j.
/// `Coded`: keys or values may be codes.
template <class T, int R, int C, bool Coded> __global__ void __launch_bounds__(256, 2) attend(AttentionTask t, int64_t query_tiles) {
  constexpr int kRows = kSide * R, kColumns = 64 * C;
  constexpr int kChunks = (kRows + kKeys) * kChunkRow, kValues = kValueKeys * kColumns;
  alignas(16) __shared__ float chunks[kChunks > kValues ? kChunks : kValues];  // Q and K, then V
  alignas(16) __shared__ float weights[kRows * kScoreRow];
  float* queries = chunks;
  float* keys = chunks + kRows * kChunkRow;
  const int x = static_cast<int>(threadIdx.x) % kSide, y = static_cast<int>(threadIdx.x) / kSide;
  const int64_t first = static_cast<int64_t>(blockIdx.x) % query_tiles * kRows, first_column = static_cast<int64_t>(blockIdx.x) / query_tiles * kColumns;
  for (int64_t head = blockIdx.y; head < t.heads; head += gridDim.y) {
    const HeadPlace h = place_of(t, head);
    const T* q = static_cast<const T*>(t.q.data) + h.q;
    const T* k = static_cast<const T*>(t.k.data) + h.k;
    const T* v = static_cast<const T*>(t.v.data) + h.v;
    float top[R], total[R], out[R][C][4] = {};
    KeyRange ranges[R];
    INFOPT_UNROLL for (int r = 0; r < R; ++r) {
      top[r] = -INFINITY, total[r] = 0;
      ranges[r] = keys_of(t, h, first + y + kSide * r);
    }
    const int64_t last = first + kRows < t.queries ? first + kRows - 1 : t.queries - 1;
    const KeyRange all = keys_of_all(t, h, first, last);
    for (int64_t key = all.begin / kKeys * kKeys; key < all.end; key += kKeys) {
      float s[R][4] = {};
      if (t.depth == 0) __syncthreads();  // else the first chunk's barrier keeps the weights until they are read
      for (int64_t d = 0; d < t.depth; d += kDepth) {
        __syncthreads();
        load_block<T, kRows, kDepth, kChunkRow>(q, first, d, t.queries, t.depth, t.q.row, t.q.column, queries);
        if (Coded && t.k_codes.type != DType::Undefined) decode_block<T, kKeys, kDepth, kChunkRow>(t.k, h.k, t.k_codes, h.k_scale, key, d, all.end, t.depth, keys);
        else load_block<T, kKeys, kDepth, kChunkRow>(k, key, d, all.end, t.depth, t.k.row, t.k.column, keys);
        __syncthreads();
        INFOPT_ROLL for (int i = 0; i < kDepth; i += 4) {
          float4 a[R], b[4];
          INFOPT_UNROLL for (int r = 0; r < R; ++r) a[r] = load4(queries + (y + kSide * r) * kChunkRow + i);
          INFOPT_UNROLL for (int j = 0; j < 4; ++j) b[j] = load4(keys + (x + kSide * j) * kChunkRow + i);
          INFOPT_UNROLL for (int r = 0; r < R; ++r)
            INFOPT_UNROLL for (int j = 0; j < 4; ++j) s[r][j] = fmaf(a[r].w, b[j].w, fmaf(a[r].z, b[j].z, fmaf(a[r].y, b[j].y, fmaf(a[r].x, b[j].x, s[r][j]))));
        }
      }
      INFOPT_UNROLL for (int r = 0; r < R; ++r) {
        const int64_t query = first + y + kSide * r;
        float high = -INFINITY;
        INFOPT_UNROLL for (int j = 0; j < 4; ++j) {
          s[r][j] = query < t.queries ? finished_score(t, h, query, key + x + kSide * j, ranges[r], s[r][j]) : -INFINITY;
          high = fmaxf(high, s[r][j]);
        }
        const float now = fmaxf(top[r], row_max(high)), shift = now == -INFINITY ? 0.0f : now, decay = expf(top[r] - shift);
        float sum = 0;
        INFOPT_UNROLL for (int j = 0; j < 4; ++j) {
          const float p = expf(s[r][j] - shift);
          sum += p;
          weights[(y + kSide * r) * kScoreRow + x + kSide * j] = p;
        }
        total[r] = total[r] * decay + row_sum(sum);
        top[r] = now;
        INFOPT_UNROLL for (int c = 0; c < C; ++c)
          INFOPT_UNROLL for (int j = 0; j < 4; ++j) out[r][c][j] *= decay;
      }
      for (int part = 0; part < kKeys; part += kValueKeys) {
        __syncthreads();
        if (Coded && t.v_codes.type != DType::Undefined) decode_block<T, kValueKeys, kColumns, kColumns>(t.v, h.v, t.v_codes, h.v_scale, key + part, first_column, all.end, t.value_depth, chunks);
        else load_block<T, kValueKeys, kColumns, kColumns>(v, key + part, first_column, all.end, t.value_depth, t.v.row, t.v.column, chunks);
        __syncthreads();
        INFOPT_ROLL for (int i = 0; i < kValueKeys; i += 4) {
          float4 p[R];
          INFOPT_UNROLL for (int r = 0; r < R; ++r) p[r] = load4(weights + (y + kSide * r) * kScoreRow + part + i);
          INFOPT_UNROLL for (int c = 0; c < C; ++c)
            INFOPT_UNROLL for (int j = 0; j < 4; ++j) {
              const float4 values = load4(chunks + (i + j) * kColumns + 64 * c + 4 * x);
              INFOPT_UNROLL for (int r = 0; r < R; ++r) {
                const float by = j == 0 ? p[r].x : j == 1 ? p[r].y : j == 2 ? p[r].z : p[r].w;
                out[r][c][0] = fmaf(by, values.x, out[r][c][0]);
                out[r][c][1] = fmaf(by, values.y, out[r][c][1]);
                out[r][c][2] = fmaf(by, values.z, out[r][c][2]);
                out[r][c][3] = fmaf(by, values.w, out[r][c][3]);
              }
            }
        }
      }
    }
    T* to = const_cast<T*>(static_cast<const T*>(t.out.data)) + h.out;
    INFOPT_UNROLL for (int r = 0; r < R; ++r) {
      const int64_t query = first + y + kSide * r;
      if (query >= t.queries) continue;
      const bool zero = (t.masked_is_zero && total[r] == 0) || (t.nan_is_zero && !(total[r] > 0));
      const float by = zero ? 0.0f : 1.0f / total[r];
      INFOPT_UNROLL for (int c = 0; c < C; ++c)
        INFOPT_UNROLL for (int j = 0; j < 4; ++j) {
          const int64_t column = first_column + 64 * c + 4 * x + j;
          if (column < t.value_depth) store_float(to[query * t.out.row + column * t.out.column], zero ? 0.0f : out[r][c][j] * by);
        }
    }
    __syncthreads();
  }
}

template <class T, bool Coded> void attend_of(Stream& stream, const AttentionTask& t) {
  const auto launch = [&](auto kernel, int64_t rows, int64_t columns, const char* name) {
    const int64_t query_tiles = blocks_for(t.queries, rows);
    launch_named(name, stream, kernel, {query_tiles * blocks_for(t.value_depth, columns), t.heads < 65535 ? t.heads : 65535}, 256, 0, t, query_tiles);
  };
  const bool few = t.queries <= kSide, narrow = t.value_depth <= 64;
  if (few && narrow) launch(attend<T, 1, 1, Coded>, 16, 64, "attend<1, 1>");
  else if (few) launch(attend<T, 1, 2, Coded>, 16, 128, "attend<1, 2>");
  else if (narrow) launch(attend<T, 4, 1, Coded>, 64, 64, "attend<4, 1>");
  else launch(attend<T, 4, 2, Coded>, 64, 128, "attend<4, 2>");
}

template <bool Coded> void attend_plainly_as(Stream& stream, DType type, const AttentionTask& task) {
  switch (type) {
    case DType::F32: return attend_of<float, Coded>(stream, task);
    case DType::F16: return attend_of<half, Coded>(stream, task);
    case DType::BF16: return attend_of<bfloat16, Coded>(stream, task);
    default: throw Error(ErrorKind::Unsupported, "attention of " + std::string(name_of(type)));
  }
}

}  // namespace
}  // namespace infopt::cuda
