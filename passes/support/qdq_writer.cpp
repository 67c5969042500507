#include "passes/support/qdq_writer.h"

#include <algorithm>
#include <cmath>

namespace infopt {

ValueId QdqWriter::scalar(float value) {
  auto [it, fresh] = scales_.emplace(value, kNone);
  if (fresh) it->second = edit_.add_constant(Tensor::scalar(value));
  return it->second;
}

ValueId QdqWriter::zero_point(int32_t value, DType type) {
  auto [it, fresh] = zero_points_.emplace(std::pair{type, value}, kNone);
  if (fresh) it->second = edit_.add_constant(cast(Tensor::scalar(value), type));
  return it->second;
}

ValueId QdqWriter::zeros(DType dtype, int64_t count) {
  auto [it, fresh] = zeros_.emplace(std::pair{dtype, count}, kNone);
  if (fresh) it->second = edit_.add_constant(Tensor::zeros(dtype, count < 0 ? Shape{} : Shape{count}));
  return it->second;
}

ValueId QdqWriter::dequantize(ValueId codes, ValueId scale, ValueId zero, int64_t axis, bool per_axis) {
  GraphEdit::NewNode spec{.op = "DequantizeLinear"};
  if (per_axis) spec.attributes.push_back({"axis", axis, {}});
  std::vector<ValueId> inputs{codes, scale};
  if (zero != kNone) inputs.push_back(zero);
  return edit_.add(std::move(spec), std::move(inputs));
}

ValueId QdqWriter::round_trip(ValueId value, const Quantization& q, DType type) {
  const ValueId scale = scalar(q.scale), zero = zero_point(q.zero_point, type);
  const ValueId codes = edit_.add({.op = "QuantizeLinear"}, {value, scale, zero});
  return dequantize(codes, scale, zero, 0, false);
}

ValueId QdqWriter::constant(const Tensor& values, bool symmetric) {
  const auto v = to_vector<float>(values);
  const auto [low, high] = std::minmax_element(v.begin(), v.end());
  const Quantization q = v.empty() ? Quantization{} : quantization_of({*low, *high}, signed_, symmetric);
  const double least = signed_ ? -128 : 0;
  std::vector<float> codes;
  for (float f : v) codes.push_back(static_cast<float>(std::clamp(std::nearbyint(static_cast<double>(f) / static_cast<double>(q.scale)) + q.zero_point, least, least + 255)));
  const ValueId id = edit_.add_constant(cast(Tensor::of<float>(values.shape(), codes), narrow()));
  return dequantize(id, scalar(q.scale), zero_point(q.zero_point, narrow()), 0, false);
}

ValueId QdqWriter::weights(const Layer& layer, const Shape& stored, const QuantizedWeights& q) { return weights(layer, edit_.add_constant(write_weights(layer, stored, q.codes)), q); }

ValueId QdqWriter::weights(const Layer& layer, ValueId codes, const QuantizedWeights& q) {
  if (q.scales.size() == 1 && layer.out != 1) return dequantize(codes, scalar(q.scales[0]), zeros(DType::I8, -1), 0, false);
  return dequantize(codes, vector(q.scales), zeros(DType::I8, static_cast<int64_t>(q.scales.size())), layer.out_axis, true);
}

ValueId QdqWriter::bias(const std::vector<double>& values, float input_scale, const std::vector<float>& weight_scales) {
  std::vector<int32_t> codes;
  std::vector<float> scales;
  for (size_t c = 0; c < values.size(); ++c) {
    const float scale = input_scale * (weight_scales.size() == 1 ? weight_scales[0] : weight_scales[c]);
    scales.push_back(scale);
    codes.push_back(static_cast<int32_t>(std::clamp(std::nearbyint(values[c] / static_cast<double>(scale)), -2147483647.0, 2147483647.0)));
  }
  const auto count = static_cast<int64_t>(values.size());
  return dequantize(edit_.add_constant(Tensor::vector(codes)), vector(scales), zeros(DType::I32, count), 0, true);
}

int64_t fit_bias(const Layer& layer, const std::function<std::vector<float>()>& read, const std::vector<double>& bias, float input_scale, QuantizedWeights& q) {
  constexpr double kRoom = 1 << 30;  // half the range: the sum of products needs the rest
  int64_t widened = 0;
  std::vector<float> weights;
  const size_t per = static_cast<size_t>(layer.in * layer.taps);
  for (size_t c = 0; c < bias.size(); ++c) {
    const size_t s = q.scales.size() == 1 ? 0 : c;
    const double least = std::fabs(bias[c]) / kRoom / static_cast<double>(input_scale);
    if (static_cast<double>(q.scales[s]) >= least) continue;
    q.scales[s] = static_cast<float>(least * 1.001);
    if (++widened == 1) weights = read();
    const size_t from = q.scales.size() == 1 ? 0 : c * per, until = q.scales.size() == 1 ? weights.size() : from + per;
    for (size_t i = from; i < until; ++i)
      q.codes[i] = static_cast<int8_t>(std::clamp(std::nearbyint(static_cast<double>(weights[i]) / static_cast<double>(q.scales[s])), -127.0, 127.0));
  }
  return widened;
}

}  // namespace infopt
