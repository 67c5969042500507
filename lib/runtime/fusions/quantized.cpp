#include "lib/runtime/fusions/quantized.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <limits>

namespace infopt {
namespace {

/// The node's constant scale and zero point, one each; the element type from the zero point, or `otherwise`.
std::optional<Codes> one_step(PlanView& view, const Node& node, DType otherwise) {
  if (!node.domain.empty() || node.i("block_size", 0) != 0) return std::nullopt;
  const Tensor* scale = view.constant(node.input(1));
  if (!scale || scale->dtype() != DType::F32 || scale->size() != 1 || scale->rank() > 1) return std::nullopt;
  Codes codes;
  codes.scale = scale->data<float>()[0];
  codes.dtype = otherwise;
  if (node.input(2) != kNone) {
    const Tensor* zero = view.constant(node.input(2));
    if (!zero || zero->size() != 1) return std::nullopt;
    codes.dtype = zero->dtype();
    if (codes.dtype == DType::U8 || codes.dtype == DType::I8) codes.zero = static_cast<int32_t>(to_scalar<int64_t>(*zero));
  }
  const bool sane = codes.scale >= 1e-12f && codes.scale <= 1e12f;  // what kernels make of three of them is a normal number, too
  if (!sane || (codes.dtype != DType::U8 && codes.dtype != DType::I8)) return std::nullopt;
  return codes;
}

/// True for zero points that are left out or constant zeros.
bool all_zero(PlanView& view, ValueId value) {
  if (value == kNone) return true;
  const Tensor* zero = view.constant(value);
  if (!zero || !is_integer(zero->dtype())) return false;
  const auto zeros = to_vector<int64_t>(*zero);
  return std::all_of(zeros.begin(), zeros.end(), [](int64_t z) { return z == 0; });
}

DType declared(const PlanView& view, ValueId value) {
  const Node* producer = view.producer(value);
  if (producer && producer->is("QuantizeLinear") && producer->input(2) == kNone && producer->i("output_dtype", 0) == 0) return DType::U8;
  return view.graph().value(value).type.dtype;
}

}  // namespace

DType code_type(PlanView& view, ValueId value) {
  static constexpr const char* kMovers[] = {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Concat", "Identity"};
  for (int depth = 0; depth < 16 && value != kNone; ++depth) {
    const Node* node = view.producer(value);
    if (!node) return view.graph().value(value).type.dtype;
    if (node->is("QuantizeLinear")) {
      const auto codes = quantizes(view, *node);
      return codes ? codes->dtype : DType::Undefined;
    }
    if (node->op.starts_with("QLinear") || node->op == "QGemm") {
      // The zero point of the result is the last of its kind; a concatenation's comes second.
      const size_t at = node->op == "QLinearConcat" ? 1 : node->is("QLinearConv") || node->is("QLinearMatMul") ? 7 : node->inputs.size() - 1;
      const Tensor* zero = view.constant(node->input(at));
      return zero ? zero->dtype() : DType::Undefined;
    }
    if (!node->domain.empty() || std::none_of(std::begin(kMovers), std::end(kMovers), [&](const char* op) { return node->op == op; })) return view.graph().value(value).type.dtype;
    value = node->input(0);
  }
  return DType::Undefined;
}

std::optional<Codes> dequantized(PlanView& view, ValueId value) {
  const Node* node = view.producer(value);
  if (!node || !node->is("DequantizeLinear") || node->input(0) == kNone) return std::nullopt;
  const auto to = node->i("output_dtype", 0);
  if (to != 0 && to != 1) return std::nullopt;
  auto codes = one_step(view, *node, declared(view, node->input(0)));
  if (codes) codes->value = node->input(0);
  return codes;
}

std::optional<Codes> quantizes(PlanView& view, const Node& node) {
  if (!node.is("QuantizeLinear") || node.i("precision", 0) > 1) return std::nullopt;
  const int64_t to = node.i("output_dtype", 0);
  auto codes = one_step(view, node, to == 0 ? DType::U8 : static_cast<DType>(to));
  if (codes) codes->value = node.outputs[0];
  return codes;
}

std::optional<WeightCodes> dequantized_weights(PlanView& view, ValueId value, int64_t axis, int64_t rank) {
  const Node* node = view.producer(value);
  if (!node || !node->is("DequantizeLinear") || node->i("block_size", 0) != 0) return std::nullopt;
  const Tensor *codes = view.constant(node->input(0)), *scale = view.constant(node->input(1));
  if (!codes || !scale || codes->rank() != rank || scale->dtype() != DType::F32 || scale->rank() > 1) return std::nullopt;
  if (codes->dtype() != DType::I8 && codes->dtype() != DType::U8) return std::nullopt;
  const int64_t channels = codes->dim(axis);
  int64_t own = node->i("axis", 1);
  if (own < 0) own += rank;
  if (scale->size() != 1 && (own != axis || scale->size() != channels)) return std::nullopt;
  WeightCodes w;
  w.codes = *codes;
  w.scales = to_vector<float>(*scale);
  w.scales.resize(static_cast<size_t>(channels), w.scales.empty() ? 1.0f : w.scales[0]);
  if (node->input(2) != kNone) {
    const Tensor* zero = view.constant(node->input(2));
    if (!zero || zero->size() != scale->size() || zero->dtype() != codes->dtype()) return std::nullopt;
    for (int64_t z : to_vector<int64_t>(*zero)) w.zeros.push_back(static_cast<int32_t>(z));
    w.zeros.resize(static_cast<size_t>(channels), w.zeros.empty() ? 0 : w.zeros[0]);
    if (std::all_of(w.zeros.begin(), w.zeros.end(), [](int32_t z) { return z == 0; })) w.zeros.clear();
  }
  return w;
}

bool keeps_digits(float scale) { return std::isfinite(scale) && (scale == 0 || std::fabs(scale) >= std::numeric_limits<float>::min()); }

std::optional<std::vector<float>> sum_steps(const Codes& input, const WeightCodes& weights, float output_scale) {
  std::vector<float> step = weights.scales;
  for (float& s : step) {
    s = input.scale * s;
    if (!keeps_digits(s) || !keeps_digits(s / output_scale)) return std::nullopt;
  }
  return step;
}

int64_t largest_sum(const Codes& input, const WeightCodes& weights) {
  const auto reach = [](DType type, int64_t zero) {
    const int64_t least = type == DType::I8 ? -128 : 0;
    return std::max(zero - least, least + 255 - zero);
  };
  int64_t weight = reach(weights.codes.dtype(), 0);
  for (int32_t z : weights.zeros) weight = std::max(weight, reach(weights.codes.dtype(), z));
  const int64_t terms = weights.codes.size() / std::max<int64_t>(1, static_cast<int64_t>(weights.scales.size()));
  return terms * weight * reach(input.dtype, input.zero);
}

bool read_bias(PlanView& view, ValueId value, const std::vector<float>& step, int64_t sum, CodedBias& bias) {
  const size_t n = step.size();
  if (value == kNone || n == 0) return true;
  if (const Node* node = view.producer(value); node && node->is("DequantizeLinear") && all_zero(view, node->input(2))) {
    const Tensor *codes = view.constant(node->input(0)), *scale = view.constant(node->input(1));
    if (codes && scale && codes->dtype() == DType::I32 && scale->dtype() == DType::F32 && codes->size() == static_cast<int64_t>(n) && codes->rank() == 1 &&
        (scale->size() == 1 || scale->size() == static_cast<int64_t>(n))) {
      bool same = true, fits = true;
      for (size_t i = 0; i < n; ++i) {
        const float s = scale->data<float>()[scale->size() == 1 ? 0 : i];
        same = same && std::fabs(s - step[i]) <= 1e-6f * step[i];
        fits = fits && std::abs(int64_t{codes->data<int32_t>()[i]}) + sum <= kMostSum;
      }
      if (same && !fits) {
        bias.wide.assign(codes->data<int32_t>(), codes->data<int32_t>() + n);
        bias.sum = sum;
      }
      if (same && fits) {
        bias.whole.assign(codes->data<int32_t>(), codes->data<int32_t>() + n);
        return true;
      }
      for (size_t i = 0; i < n; ++i) bias.real.push_back(static_cast<float>(codes->data<int32_t>()[i]) * scale->data<float>()[scale->size() == 1 ? 0 : i]);
      return std::all_of(bias.real.begin(), bias.real.end(), [](float v) { return std::isfinite(v); });
    }
  }
  const Tensor* real = view.constant(value);
  if (!real || real->dtype() != DType::F32 || (real->size() != 1 && real->size() != static_cast<int64_t>(n))) return false;
  if (real->rank() > 0 && real->dim(-1) != real->size()) return false;
  if (!std::all_of(real->data<float>(), real->data<float>() + real->size(), [](float v) { return std::isfinite(v); })) return false;
  bias.real.assign(real->data<float>(), real->data<float>() + real->size());
  bias.real.resize(n, bias.real[0]);
  return true;
}

}  // namespace infopt
