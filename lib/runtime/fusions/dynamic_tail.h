// What stands behind a MatMulInteger or ConvInteger of dynamically quantized activations: Cast → Mul by the scales → Add of a bias →
// bounds.
#pragma once
#include <vector>

#include "lib/runtime/cpu/int8_epilogue.h"
#include "lib/runtime/fusion.h"

namespace infopt {

/// Mul(Cast(core), scales), operands in any order, where nobody else sees the sums.
struct ScaledSums {
  const Node *core = nullptr, *cast = nullptr, *scale = nullptr;  ///< scale: the Mul
  ValueId scales = kNone;
};
/// What the Mul `mul` ends, where its core is of the operator `op`.
std::optional<ScaledSums> scaled_sums(PlanView& view, const Node& mul, const char* op);

struct DynamicTail {
  const Node* core = nullptr;       ///< the MatMulInteger or ConvInteger: codes, weights, zero point, weights' zero points
  ValueId scale = kNone;            ///< the activations', made by DynamicQuantizeLinear
  std::vector<float> scales, bias;  ///< the weights', one a column; none or one a column
  std::vector<int32_t> zeros;       ///< the weights' zero points: none, or one a column
  PostActivation bounds;
  size_t rank = 0;  ///< the most axes of a constant in it
  std::vector<NodeId> covers;
};

/// What `node` ends. None unless the core is of the operator `op`, MatMulInteger with weights (K, N) or ConvInteger, and its weights are
/// constant codes.
std::optional<DynamicTail> dynamic_tail(PlanView& view, const Node& node, const char* op);

/// The tail for the activations' scale of one run: owns what the epilogue points to.
struct DynamicEpilogue {
  DynamicEpilogue(const DynamicTail& tail, float scale);
  DynamicEpilogue(const DynamicEpilogue&) = delete;
  DynamicEpilogue& operator=(const DynamicEpilogue&) = delete;
  std::vector<float> scales;
  cpu::Int8Epilogue epilogue;
};

/// The zero points of constant weights with `n` columns, one a column; none where all are 0. False where they aren't constant codes of one
/// or n places.
bool column_zeros(PlanView& view, ValueId value, int64_t n, std::vector<int32_t>& zeros);

}  // namespace infopt
