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
  CodeStep step() const { return {dtype, scale, zero}; }
  bool same_step(const Codes& other) const { return dtype == other.dtype && scale == other.scale && zero == other.zero; }
};
/// The codes behind a value that DequantizeLinear makes with one constant scale.
std::optional<Codes> dequantized(PlanView& view, ValueId value);
/// The codes that a QuantizeLinear with one constant scale makes; `value` is its output.
std::optional<Codes> quantizes(PlanView& view, const Node& node);

/// The element type of a value that QuantizeLinear or an operator on codes makes, perhaps moved since; Undefined where that isn't known.
DType code_type(PlanView& view, ValueId value);

/// Constant 8-bit weights with one scale, or one for each output channel.
struct WeightCodes {
  Tensor codes;
  std::vector<float> scales;     ///< `channels` of them
  std::vector<int32_t> zeros;    ///< the same, empty where all are 0
};
/// The weights behind a value that DequantizeLinear makes from a constant; `axis` is the output channels', of `channels` places.
std::optional<WeightCodes> dequantized_weights(PlanView& view, ValueId value, int64_t axis, int64_t rank);

/// A bias for int32 sums whose scale is step[n]: whole steps where it is stored so, else floats.
struct CodedBias {
  std::vector<int32_t> whole;
  std::vector<float> real;
  std::vector<int32_t> wide = {};  ///< beside `real`: whole steps too, some of which leave the sums no room in 32 bits
  int64_t sum = 0;                 ///< the largest magnitude of what those are added to
};
/// False where the value isn't constant or finite or doesn't have as many elements as `step` (a single one is repeated). Whole steps only
/// where `sum`, the largest magnitude of what they are added to, leaves room for them in 32 bits.
bool read_bias(PlanView& view, ValueId value, const std::vector<float>& step, int64_t sum, CodedBias& bias);

/// The largest |Σ (a − za)·(w − zw)| that there can be in a column. Where it is beyond 32 bits, integer kernels won't do.
int64_t largest_sum(const Codes& input, const WeightCodes& weights);
inline constexpr int64_t kMostSum = (int64_t{1} << 31) - 1;

/// True for scales that float32 holds with all its digits: finite, and 0 or not below the normal numbers.
bool keeps_digits(float scale);
/// The scale of a convolution's or product's int32 sums for each column; none where they or their share of the output's step lose digits.
std::optional<std::vector<float>> sum_steps(const Codes& input, const WeightCodes& weights, float output_scale);

}  // namespace infopt
