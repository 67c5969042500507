// What QuantizeLinear and DequantizeLinear around a node say: codes, their scale and zero point, weights.
#pragma once
#include <optional>
#include <vector>

#include "lib/runtime/fusion.h"

namespace infopt {

/// 8-bit codes with one scale: real = (code − zero) · scale.
struct Codes {
  ValueId value = kNone;
  DType dtype = DType::U8;
  float scale = 1;
  int32_t zero = 0;
  bool same_step(const Codes& other) const { return dtype == other.dtype && scale == other.scale && zero == other.zero; }
};
/// The codes behind a value that DequantizeLinear makes with one constant scale.
std::optional<Codes> dequantized(PlanView& view, ValueId value);
/// The codes that a QuantizeLinear with one constant scale makes; `value` is its output.
std::optional<Codes> quantizes(PlanView& view, const Node& node);

/// Constant 8-bit weights with one scale, or one for each output channel.
struct CodedWeights {
  Tensor codes;
  std::vector<float> scales;     ///< `channels` of them
  std::vector<int32_t> zeros;    ///< the same, empty where all are 0
};
/// The weights behind a value that DequantizeLinear makes from a constant; `axis` is the output channels', of `channels` places.
std::optional<CodedWeights> dequantized_weights(PlanView& view, ValueId value, int64_t axis, int64_t rank);

/// A bias for int32 sums whose scale is step[n]: whole steps where it is stored so, else floats.
struct CodedBias {
  std::vector<int32_t> whole;
  std::vector<float> real;
};
/// False where the value isn't constant or doesn't have as many elements as `step` (a single one is repeated).
bool read_bias(PlanView& view, ValueId value, const std::vector<float>& step, CodedBias& bias);

}  // namespace infopt
