// Writes QuantizeLinear/DequantizeLinear nodes; equal scales and zero points become one constant.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "calibration/observer.h"
#include "lib/ir/edit.h"
#include "passes/profile.h"
#include "passes/support/layers.h"
#include "passes/support/quantize_weights.h"

namespace infopt {

class QdqWriter {
 public:
  QdqWriter(GraphEdit& edit, const Profile& profile) : edit_(edit), signed_(profile.activations_signed) {}

  /// The activations' 8-bit type.
  DType narrow() const { return signed_ ? DType::I8 : DType::U8; }
  /// DequantizeLinear(QuantizeLinear(value)), with codes of I8, U8, I16 or U16.
  ValueId round_trip(ValueId value, const Quantization& q, DType type);
  /// DequantizeLinear of a constant in the activations' 8-bit type, over its own range.
  ValueId constant(const Tensor& values, bool symmetric);
  /// DequantizeLinear of a layer's int8 weights, with zero points, in the stored order.
  ValueId weights(const Layer& layer, const Shape& stored, const QuantizedWeights& q);
  /// The same, of codes that the graph has already.
  ValueId weights(const Layer& layer, ValueId codes, const QuantizedWeights& q);
  /// DequantizeLinear of an int32 bias at input scale × weight scale. Codes must fit; see fit_bias().
  ValueId bias(const std::vector<double>& values, float input_scale, const std::vector<float>& weight_scales);

  ValueId scalar(float value);
  ValueId vector(const std::vector<float>& values) { return edit_.add_constant(Tensor::vector(values)); }
  ValueId dequantize(ValueId codes, ValueId scale, ValueId zero_point, int64_t axis, bool per_axis);

 private:
  ValueId zero_point(int32_t value, DType type);
  ValueId zeros(DType dtype, int64_t count);
  GraphEdit& edit_;
  bool signed_;
  std::map<float, ValueId> scales_;
  std::map<std::pair<DType, int32_t>, ValueId> zero_points_;
  std::map<std::pair<DType, int64_t>, ValueId> zeros_;
};

/// Widens a channel's weight scale where the bias at input scale × weight scale would overflow int32, and quantizes its weights again:
/// `read` gives them, and is asked only then.
/// Returns how many channels that were.
int64_t fit_bias(const Layer& layer, const std::function<std::vector<float>()>& read, const std::vector<double>& bias, float input_scale, QuantizedWeights& q);

}  // namespace infopt
