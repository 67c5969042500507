// ONNX's Attention (opset 23 and later): what its attributes say, and its operands as batch × heads × rows × depth.
#pragma once
#include <optional>

#include "lib/base/tensor.h"
#include "lib/ir/graph.h"

namespace infopt {

struct AttentionOptions {
  static constexpr int64_t kFar = int64_t{1} << 40;  ///< beyond any position
  bool causal = false, pads_mask = false;  ///< pads_mask: keys behind a short mask's end are masked
  int64_t q_heads = 0, kv_heads = 0;       ///< of three-axis inputs
  int64_t left = -1, right = -1;           ///< keys that a query sees before and behind its own; -1: all
  float softcap = 0;
  std::optional<float> scale = {};
};

/// `opset`: of the graph; `type`: of Q, or Undefined. Throws Error(Unsupported) with the reason where it must be run as the operator's standard body.
AttentionOptions attention_options(const Node& node, int64_t opset, DType type);

/// A tensor of batch × heads × rows × depth, whatever the order of its axes; elements of a row follow each other.
struct AttentionOperand {
  int64_t batch = 0, heads = 0, rows = 0, depth = 0;
  int64_t batch_stride = 0, head_stride = 0, row_stride = 0;

  /// (batch, heads, rows, depth), or (batch, rows, heads·depth) with the heads given. Throws Error(Malformed) for other shapes.
  AttentionOperand(const Shape& shape, int64_t head_count, const char* name);
  int64_t offset(int64_t b, int64_t head) const { return b * batch_stride + head * head_stride; }
  /// Of a four-axis tensor with these rows.
  Shape shape_with(int64_t row_count) const { return {batch, heads, row_count, depth}; }
};

/// Throws Error(Malformed) where they don't fit one another. `k` and `v`: without a past.
void check_attention(const AttentionOperand& q, const AttentionOperand& k, const AttentionOperand& v, const Shape& q_shape, const Shape& k_shape, const Shape& v_shape);
/// Throws Error(Malformed) where K's or V's past has another shape or type than `now` with any number of rows.
void check_past(const Tensor& past, const AttentionOperand& now, DType type);

}  // namespace infopt
