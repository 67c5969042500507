// softmax(scale·Q·Kᵀ + mask)·V, a tile of queries against a tile of keys at a time, so that the scores are never in global memory.
#pragma once
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/indexing.h"
#include "lib/runtime/cuda/quantizer.h"

namespace infopt::cuda {

constexpr int kLeadAxes = 4;

/// A matrix of each head; strides in elements.
struct HeadMatrix {
  const void* data = nullptr;
  int64_t lead[kLeadAxes] = {};
  int64_t row = 0, column = 0;
};

/// What the codes of keys or values mean: (code − zero)·scale, rounded to the type that attention is of.
struct HeadCodes {
  DType type = DType::Undefined;  ///< U8, I8, F8E4M3FN or F8E5M2; Undefined: there are no codes
  Numbers scales, zeros;
  HeadMatrix at;                  ///< which of them is an element's, in strides like the codes' own
};

/// What the kernels read. The meaning of each number is that of lib/runtime/cpu/attention.h.
struct AttentionTask {
  HeadMatrix q, k, v;     ///< queries × depth, keys × depth, keys × value_depth
  HeadMatrix mask, keep;  ///< queries × keys; without data where there is none
  HeadMatrix out;         ///< queries × value_depth
  Divider<uint32_t> lead[kLeadAxes];  ///< sizes of the axes that count the heads
  int64_t heads = 1, queries = 0, keys = 0, depth = 0, value_depth = 0;
  float scale = 1, softcap = 0, instead = 0;
  DType mask_type = DType::F32;  ///< F32, F16 or BF16
  bool keep_if = true, keep_last = true;
  bool one_position = false, masked_is_zero = false, nan_is_zero = false, bounded = false;
  bool position_from_length = false;  ///< a head's position is its length less `queries_behind`
  int64_t position = 0, queries_behind = 0, left = -1, right = -1, known_keys = 0;
  HeadMatrix lengths;                 ///< int64_t, keys that are known to each head; without data: all are
  HeadCodes k_codes, v_codes;         ///< where k's and v's elements are bytes
  bool coded() const { return k_codes.type != DType::Undefined || v_codes.type != DType::Undefined; }
};

/// The axes that count the heads: their sizes, and each operand's strides along them. Neighbours that no operand tells apart are merged.
/// Throws Error(Unsupported) where more than kLeadAxes are left.
void set_heads(AttentionTask& task, const Shape& sizes, const std::vector<std::pair<HeadMatrix*, std::vector<int64_t>>>& strides);

/// What a coded operand's codes mean, from its input of scales and its one of zero points if there is one, which stand at `input` and behind;
/// that then counts on. `type`: what they must dequantize to. Gives the strides of its scales along the operand's own axes.
/// Throws Error(Malformed) where they don't fit.
std::vector<int64_t> read_codes(CudaContext& context, const CodedInput& how, const Tensor& codes, size_t& input, DType type, HeadCodes& to);

/// Of F32, F16 or BF16 (sums in float32): by tensor cores where a 16-bit type's rows lie in whole packs of eight elements, and where both
/// keys and values are codes or neither.
void run_attention(CudaRun& run, DType type, const AttentionTask& task);

/// The kernels behind it; of codes: where keys, values or both are.
void attend_plainly(Stream& stream, DType type, const AttentionTask& task);
void attend_codes_plainly(Stream& stream, DType type, const AttentionTask& task);
bool tensor_cores_take(DType type, const AttentionTask& task);
void attend_by_tensor_cores(Stream& stream, DType type, const AttentionTask& task);
void attend_codes_by_tensor_cores(Stream& stream, DType type, const AttentionTask& task);

}  // namespace infopt::cuda
