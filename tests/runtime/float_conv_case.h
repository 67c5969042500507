// Random float32 convolutions with what may stand around them: as a graph, and by ONNX's formulas in double.
#pragma once
#include <limits>
#include <numeric>

#include "tests/runtime/fusion_harness.h"

namespace infopt::test {

inline Tensor random_floats(Random& r, const Shape& shape, float low = -2, float high = 2) {
  Tensor t(DType::F32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.mutable_data<float>()[i] = r.real(low, high);
  return t;
}

/// What an element is, and how large the terms are that it sums.
struct Summed {
  double value = 0, size = 0;
};

struct FloatConvCase {
  Shape x, w, out;  ///< of the input, the weights and the result
  int64_t groups = 1;
  std::vector<int64_t> strides, dilations, pads, extra;  ///< extra: what a Pad before it adds, empty without
  std::string auto_pad = "NOTSET";
  Tensor given, weights, bias, norm[4], residual;  ///< undefined where there is none; norm: scale, offset, mean, variance
  float epsilon = 1e-5f;
  bool swapped = false;  ///< the residual is the first operand
  enum class Bounds { None, Relu, Both, Low, High } bounds = Bounds::None;
  float low = -std::numeric_limits<float>::infinity(), high = std::numeric_limits<float>::infinity();

  explicit FloatConvCase(Random& r) {
    geometry(r);
    given = random_floats(r, x);
    weights = random_floats(r, w, -1, 1);
    if (r.chance(2)) bias = random_floats(r, {w[0]});
    if (r.chance(2)) normalize(r);
    if (r.chance(2)) residual = random_floats(r, out, -8, 8);
    swapped = r.chance(2);
    bounds = r.pick({Bounds::None, Bounds::Relu, Bounds::Both, Bounds::Low, Bounds::High});
    if (bounds == Bounds::Relu) low = 0;
    if (bounds == Bounds::Both || bounds == Bounds::Low) low = r.pick({0.0f, -1.5f, 0.25f, -std::numeric_limits<float>::infinity()});
    if (bounds == Bounds::Both || bounds == Bounds::High) high = r.pick({6.0f, 0.25f, 1.0f, std::numeric_limits<float>::infinity()});
  }

  size_t spatial() const { return x.size() - 2; }
  bool joins_pad() const { return !extra.empty() && !auto_pad.starts_with("SAME"); }
  /// The operators that are left of build()'s.
  std::string steps() const { return extra.empty() || joins_pad() ? "Conv" : "Pad Conv"; }

  void geometry(Random& r) {
    const size_t axes = static_cast<size_t>(r.pick<int64_t>({2, 2, 2, 1, 3}));
    const int64_t kind = r.in(0, 3);
    groups = kind == 0 ? r.in(1, 40) : kind == 1 ? r.in(2, 4) : 1;
    const int64_t channels = kind == 0 ? 1 : r.in(1, kind == 1 ? 9 : 20), columns = kind == 0 ? r.pick<int64_t>({1, 1, 2}) : r.in(1, kind == 1 ? 9 : 36);
    x = {r.chance(12) ? 0 : r.in(1, 3), channels * groups};
    w = {columns * groups, channels};
    std::vector<int64_t> begin, end;
    auto_pad = r.chance(4) ? r.pick({"SAME_UPPER", "SAME_LOWER", "VALID"}) : "NOTSET";
    if (r.chance(2))
      for (size_t i = 0; i < 2 * axes; ++i) extra.push_back(r.pick<int64_t>({0, 1, 1, 2, 5}));
    for (size_t i = 0; i < axes; ++i) {
      w.push_back(r.pick<int64_t>({1, 2, 3, 3}));
      strides.push_back(r.pick<int64_t>({1, 1, 2, 3}));
      dilations.push_back(r.pick<int64_t>({1, 1, 2}));
      begin.push_back(r.in(0, 2));
      end.push_back(r.in(0, 2));
      const int64_t extent = (w.back() - 1) * dilations.back() + 1;
      const int64_t around = (auto_pad == "NOTSET" ? begin.back() + end.back() : 0) + (extra.empty() ? 0 : extra[i] + extra[axes + i]);
      x.push_back(std::max<int64_t>(1, extent - around) + r.in(0, axes == 3 ? 4 : 9));
    }
    pads = begin;
    pads.insert(pads.end(), end.begin(), end.end());
    resolve();
  }

  void normalize(Random& r) {
    norm[0] = random_floats(r, {w[0]}, -1.5f, 1.5f);
    norm[1] = random_floats(r, {w[0]});
    norm[2] = random_floats(r, {w[0]});
    norm[3] = random_floats(r, {w[0]}, 0.1f, 4);
    if (r.chance(3)) norm[3].mutable_data<float>()[r.in(0, w[0] - 1)] = 0;
    epsilon = r.pick({1e-5f, 1e-3f, 0.1f});
  }

  /// Fills in `out` and where the window begins.
  void resolve() {
    out = {x[0], w[0]};
    for (size_t i = 0; i < spatial(); ++i) {
      const size_t a = i + 3 - spatial();
      in_[a] = x[i + 2], kernel_[a] = w[i + 2], stride_[a] = strides[i], dilation_[a] = dilations[i];
      const int64_t extent = (kernel_[a] - 1) * dilation_[a] + 1, begin = extra.empty() ? 0 : extra[i], full = in_[a] + begin + (extra.empty() ? 0 : extra[spatial() + i]);
      int64_t before = 0, after = 0;
      if (auto_pad == "NOTSET") before = pads[i], after = pads[i + spatial()];
      if (auto_pad.starts_with("SAME")) {
        const int64_t wanted = (full + stride_[a] - 1) / stride_[a], total = std::max<int64_t>(0, (wanted - 1) * stride_[a] + extent - full);
        before = auto_pad == "SAME_UPPER" ? total / 2 : (total + 1) / 2;
        after = total - before;
      }
      out_[a] = (full + before + after - extent) / stride_[a] + 1;
      before_[a] = before + begin;
      out.push_back(out_[a]);
    }
  }

  Attributes attributes() const {
    Attributes a{{"strides", strides, {}}, {"dilations", dilations, {}}, {"group", groups, {}}};
    if (auto_pad == "NOTSET") a.push_back({"pads", pads, {}});
    else a.push_back({"auto_pad", auto_pad, {}});
    return a;
  }
  /// Pad's second input.
  std::vector<int64_t> all_pads() const {
    std::vector<int64_t> all(2 * x.size(), 0);
    for (size_t i = 0; i < spatial(); ++i) all[2 + i] = extra[i], all[x.size() + 2 + i] = extra[spatial() + i];
    return all;
  }

  ValueId conv(Net& net, ValueId from) const {
    std::vector<ValueId> inputs{from, net.constant(weights)};
    if (bias.defined()) inputs.push_back(net.constant(bias));
    return net.add("Conv", inputs, attributes());
  }
  ValueId normalized(Net& net, ValueId y) const {
    if (!norm[0].defined()) return y;
    return net.add("BatchNormalization", {y, net.constant(norm[0]), net.constant(norm[1]), net.constant(norm[2]), net.constant(norm[3])}, {{"epsilon", epsilon, {}}});
  }
  ValueId bounded(Net& net, ValueId y) const {
    switch (bounds) {
      case Bounds::None: return y;
      case Bounds::Relu: return net.add("Relu", {y});
      case Bounds::Low: return net.add("Clip", {y, net.number(low)});
      case Bounds::High: return net.add("Clip", {y, kNone, net.number(high)});
      default: return net.add("Clip", {y, net.number(low), net.number(high)});
    }
  }
  /// All of it. `other` is the residual's value, where there is one.
  ValueId build(Net& net, ValueId from, ValueId other) const {
    if (!extra.empty()) from = net.add("Pad", {from, net.integers(all_pads()), net.number(0)});
    ValueId y = normalized(net, conv(net, from));
    if (other != kNone) y = net.add("Add", {swapped ? other : y, swapped ? y : other});
    return bounded(net, y);
  }

  /// The convolution of the padded input, with bias and normalization.
  std::vector<Summed> reference() const {
    std::vector<Summed> y;
    const int64_t channels = w[1], columns = w[0] / groups, taps = kernel_[0] * kernel_[1] * kernel_[2], space = out_[0] * out_[1] * out_[2];
    for (int64_t at = 0; at < element_count(out); ++at) {
      const int64_t o[3] = {at / (out_[1] * out_[2]) % out_[0], at / out_[2] % out_[1], at % out_[2]}, n = at / space % w[0], image = at / (space * w[0]);
      Summed s;
      if (bias.defined()) s.value = bias.data<float>()[n], s.size = std::fabs(s.value);
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t k[3] = {t / (kernel_[1] * kernel_[2]), t / kernel_[2] % kernel_[1], t % kernel_[2]};
        int64_t place = 0;
        bool inside = true;
        for (size_t a = 0; a < 3; ++a) {
          const int64_t p = o[a] * stride_[a] + k[a] * dilation_[a] - before_[a];
          inside = inside && p >= 0 && p < in_[a];
          place = place * in_[a] + p;
        }
        for (int64_t c = 0; inside && c < channels; ++c) {
          const int64_t plane = image * x[1] + n / columns * channels + c;
          const double term = static_cast<double>(given.data<float>()[plane * in_[0] * in_[1] * in_[2] + place]) * static_cast<double>(weights.data<float>()[(n * channels + c) * taps + t]);
          s.value += term, s.size += std::fabs(term);
        }
      }
      y.push_back(normalized(s, n));
    }
    return y;
  }
  Summed normalized(const Summed& s, int64_t channel) const {
    if (!norm[0].defined()) return s;
    const double scale = norm[0].data<float>()[channel] / std::sqrt(static_cast<double>(norm[3].data<float>()[channel]) + static_cast<double>(epsilon));
    const double mean = norm[2].data<float>()[channel], offset = norm[1].data<float>()[channel];
    return {(s.value - mean) * scale + offset, (s.size + std::fabs(mean)) * std::fabs(scale) + std::fabs(offset)};
  }
  /// Everything, from a residual of the result's shape (undefined: none).
  std::vector<Summed> reference(const Tensor& other) const {
    auto y = reference();
    for (size_t i = 0; i < y.size(); ++i) {
      if (other.defined()) y[i].value += other.data<float>()[i], y[i].size += std::fabs(static_cast<double>(other.data<float>()[i]));
      y[i].value = std::min<double>(std::max<double>(y[i].value, low), high);
    }
    return y;
  }

 private:
  int64_t in_[3] = {1, 1, 1}, kernel_[3] = {1, 1, 1}, stride_[3] = {1, 1, 1}, dilation_[3] = {1, 1, 1}, before_[3] = {0, 0, 0}, out_[3] = {1, 1, 1};
};

/// The rounding that a float32 sum may have in any order, relative to the size of its terms.
constexpr double kRounding = 3e-6;

inline void expect_near(const Tensor& got, const Shape& shape, const std::vector<Summed>& want) {
  ASSERT_EQ(got.dtype(), DType::F32);
  ASSERT_EQ(got.shape(), shape);
  for (size_t i = 0; i < want.size(); ++i)
    ASSERT_NEAR(got.data<float>()[i], want[i].value, kRounding * (want[i].size + 1)) << "element " << i;
}

}  // namespace infopt::test
