// Resize and Upsample. Interpolation is separable: each axis has a table of taps (source places and weights) and is resampled by itself.
#include "lib/ops/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lib/base/share.h"
#include "lib/base/simd.h"
#include "lib/base/strided.h"
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

template <class E>
E choice(const std::string& what, const std::string& name, std::initializer_list<std::pair<const char*, E>> all) {
  for (const auto& [text, value] : all)
    if (name == text) return value;
  malformed("there is no " + what + " '" + name + "'");
}

/// How one axis is resampled: output i is the sum over t of weight[t·out+i] times input index[t·out+i].
struct Taps {
  int64_t in = 1, out = 1, width = 1;
  std::vector<int32_t> index;
  std::vector<float> weight;
  std::vector<bool> outside;  ///< empty, or by output: takes the extrapolation value
  bool identity = true;
};

Taps taps_of(const ResizeSpec& s, const AxisPlan& a) {
  Taps t{a.in, a.out};
  if (a.identity()) return t;
  t.identity = false;
  t.width = tap_width(s, a);
  t.index.resize(at(t.out * t.width));
  if (s.mode != Interpolation::Nearest) t.weight.resize(t.index.size());
  for (int64_t i = 0; i < t.out; ++i) {
    put_taps(s, a, i, t.width, t.out, t.index.data() + i, t.weight.empty() ? nullptr : t.weight.data() + i);
    if (s.coordinates == Coordinates::TfCropAndResize) t.outside.push_back(lies_outside(s, a, i));
  }
  return t;
}

/// out[i] = Σ weight·in[index], one row.
INFOPT_SIMD void row_float(const float* in, float* out, const int32_t* index, const float* weight, int64_t n, int64_t width) {
  for (int64_t i = 0; i < n; ++i) out[i] = in[index[i]] * weight[i];
  for (int64_t t = 1; t < width; ++t)
    for (int64_t i = 0; i < n; ++i) out[i] += in[index[t * n + i]] * weight[t * n + i];
}
void row_double(const double* in, double* out, const int32_t* index, const float* weight, int64_t n, int64_t width) {
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0;
    for (int64_t t = 0; t < width; ++t) sum += in[index[t * n + i]] * static_cast<double>(weight[t * n + i]);
    out[i] = sum;
  }
}
INFOPT_SIMD void two_rows_float(const float* a, const float* b, float wa, float wb, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] * wa + b[i] * wb;
}
INFOPT_SIMD void add_row_float(const float* a, float w, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] += a[i] * w;
}

/// Resamples the middle of [outer, in, inner].
void resample(const float* x, float* y, int64_t outer, int64_t inner, const Taps& t) {
  for (int64_t o = 0; o < outer; ++o) {
    const float* in = x + o * t.in * inner;
    float* out = y + o * t.out * inner;
    if (inner == 1) {
      row_float(in, out, t.index.data(), t.weight.data(), t.out, t.width);
      continue;
    }
    for (int64_t i = 0; i < t.out; ++i) {
      const auto tap = [&](int64_t k) { return in + t.index[at(k * t.out + i)] * inner; };
      const auto weight = [&](int64_t k) { return t.weight[at(k * t.out + i)]; };
      two_rows_float(tap(0), tap(1), weight(0), weight(1), out + i * inner, inner);
      for (int64_t k = 2; k < t.width; ++k) add_row_float(tap(k), weight(k), out + i * inner, inner);
    }
  }
}
void resample(const double* x, double* y, int64_t outer, int64_t inner, const Taps& t) {
  for (int64_t o = 0; o < outer; ++o) {
    const double* in = x + o * t.in * inner;
    double* out = y + o * t.out * inner;
    if (inner == 1) {
      row_double(in, out, t.index.data(), t.weight.data(), t.out, t.width);
      continue;
    }
    std::fill_n(out, t.out * inner, 0.0);
    for (int64_t i = 0; i < t.out; ++i)
      for (int64_t k = 0; k < t.width; ++k)
        for (int64_t j = 0; j < inner; ++j)
          out[i * inner + j] += in[t.index[at(k * t.out + i)] * inner + j] * static_cast<double>(t.weight[at(k * t.out + i)]);
  }
}

Shape output_shape(const std::vector<Taps>& axes) {
  Shape shape;
  for (const Taps& t : axes) shape.push_back(t.out);
  return shape;
}

/// Calls f for every output element that lies outside the region along some axis.
template <class F>
void each_outside(const std::vector<Taps>& axes, F&& f) {
  const Shape shape = output_shape(axes), strides = row_major_strides(shape);
  const int64_t count = element_count(shape);
  if (std::all_of(axes.begin(), axes.end(), [](const Taps& t) { return t.outside.empty(); })) return;
  for (int64_t e = 0; e < count; ++e)
    for (size_t d = 0; d < axes.size(); ++d)
      if (!axes[d].outside.empty() && axes[d].outside[at(e / strides[d] % shape[d])]) {
        f(e);
        break;
      }
}

template <class T>
Tensor interpolated(Tensor x, const std::vector<Taps>& axes, float extrapolation) {
  std::vector<AxisPlan> plans(axes.size());
  for (size_t d = 0; d < axes.size(); ++d) plans[d] = {axes[d].in, axes[d].out, axes[d].identity ? 1.0F : 0.0F};
  const std::vector<size_t> order = resample_order(plans);
  for (const size_t d : order) {
    Shape shape = x.shape();
    shape[d] = axes[d].out;
    Tensor y(x.dtype(), shape);
    resample(x.data<T>(), y.mutable_data<T>(), product(shape, 0, d), product(shape, d + 1, shape.size()), axes[d]);
    x = y;
  }
  if (!order.empty()) each_outside(axes, [&](int64_t e) { x.mutable_data<T>()[e] = static_cast<T>(extrapolation); });
  return x;
}

/// Integers are cut off toward zero, clamped to their range; a hair is added first, since the weights' sum carries rounding errors.
Tensor to_integers(const Tensor& y, DType dtype, bool round) {
  Tensor cut(DType::F64, y.shape());
  const std::vector<double> from = to_vector<double>(y);
  const size_t bits = bits_of(dtype);
  const bool is_signed = dtype == DType::I8 || dtype == DType::I16 || dtype == DType::I32 || dtype == DType::I64;
  const double high = std::ldexp(1.0, static_cast<int>(bits) - (is_signed ? 1 : 0)), low = is_signed ? -high : 0;
  double* to = cut.mutable_data<double>();
  for (const double v : from) {
    const double whole = round ? std::nearbyint(v) : std::trunc(v + std::copysign(1.0 / 1024, v));
    *to++ = std::clamp(whole, low, bits < 64 ? high - 1 : std::nextafter(high, 0.0));
  }
  return cast(cut, dtype);
}

Tensor interpolate(const Tensor& x, const std::vector<Taps>& axes, const ResizeSpec& s) {
  const DType dtype = x.dtype();
  if (dtype == DType::F32) return interpolated<float>(x, axes, s.extrapolation);
  if (dtype == DType::F64) return interpolated<double>(x, axes, s.extrapolation);
  if (is_float(dtype)) return cast(interpolated<float>(cast(x, DType::F32), axes, s.extrapolation), dtype);
  if (!is_integer(dtype)) unsupported("Resize between elements of " + std::string(name_of(dtype)));
  if (bits_of(dtype) <= 8) return to_integers(interpolated<float>(cast(x, DType::F32), axes, s.extrapolation), dtype, s.antialias);
  return to_integers(interpolated<double>(cast(x, DType::F64), axes, s.extrapolation), dtype, s.antialias);
}

using Word = uint32_t __attribute__((may_alias, aligned(1)));
INFOPT_SIMD void pick_words(const Word* in, const int32_t* index, Word* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = in[index[i]];
}
INFOPT_SIMD void double_words(const Word* in, Word* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    out[2 * i] = in[i];
    out[2 * i + 1] = in[i];
  }
}

/// to[i] = from[index[i]], of so many bytes each.
INFOPT_SIMD void pick_runs(const std::byte* in, const int32_t* index, std::byte* to, int64_t n, size_t size) {
  for (int64_t i = 0; i < n; ++i, to += size) {
    const std::byte* from = in + static_cast<size_t>(index[i]) * size;
    if (size < 64) {
      std::memcpy(to, from, size);
      continue;
    }
    for (size_t k = 0; k + 64 <= size; k += 64) std::memcpy(to + k, from + k, 64);
    std::memcpy(to + size - 64, from + size - 64, 64);  // the rest, and some of it again
  }
}

/// Copies elements by the axes' index tables.
class Picker {
 public:
  Picker(const Tensor& x, const std::vector<Taps>& axes)
      : size_(element_bytes(x.dtype())), axes_(axes), x_(x), y_(x.dtype(), output_shape(axes)) {
    in_ = row_major_strides(x.shape());
    out_ = row_major_strides(y_.shape());
    last_ = axes.size();
    while (last_ > 0 && axes[last_ - 1].identity) --last_;
    run_ = last_ < axes.size() ? in_[last_] * x.shape()[last_] : 1;
    if (last_ > 0) {
      const Taps& t = axes[last_ - 1];
      doubles_ = t.out == 2 * t.in;
      for (int64_t i = 0; doubles_ && i < t.out; ++i) doubles_ = t.index[at(i)] == i / 2;
    }
    if (y_.size() == 0) return;
    if (run_ > 1 && last_ > 0) copy_runs();
    else copy(0, 0, 0);
  }
  Tensor result() const { return y_; }

 private:
  /// Channels last, say: the last resized axis consists of runs that stay together. The axes before it are rows of them.
  void copy_runs() {
    const Taps& t = axes_[last_ - 1];
    const size_t size = size_ * at(run_);
    const int64_t rows = y_.size() / (t.out * run_);
    std::byte* y = y_.mutable_raw();
    share_work(rows, std::max<int64_t>(1, (1 << 14) / (t.out * run_)), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        int64_t rest = row, in = 0;
        for (size_t d = last_ - 1; d-- > 0; rest /= axes_[d].out) {
          const int64_t place = rest % axes_[d].out;
          in += (axes_[d].identity ? place : axes_[d].index[at(place)]) * in_[d];
        }
        const std::byte* from = x_.raw() + size_ * at(in);
        pick_runs(from, t.index.data(), y + size * at(row * t.out), t.out, size);
      }
    });
  }

  void copy(size_t d, int64_t out, int64_t in) {
    std::byte* to = y_.mutable_raw() + size_ * at(out);
    if (d == last_) {
      std::memcpy(to, x_.raw() + size_ * at(in), size_ * at(run_));
      return;
    }
    const Taps& t = axes_[d];
    if (d + 1 == last_ && run_ == 1 && size_ == 4) {
      const auto* from = reinterpret_cast<const Word*>(x_.raw()) + in;
      if (doubles_) double_words(from, reinterpret_cast<Word*>(to), t.in);
      else pick_words(from, t.index.data(), reinterpret_cast<Word*>(to), t.out);
      return;
    }
    if (d + 1 == last_ && run_ == 1) {
      with_block(size_, [&](auto block) {
        using T = decltype(block);
        const auto* from = reinterpret_cast<const T*>(x_.raw()) + in;
        for (int64_t i = 0; i < t.out; ++i) reinterpret_cast<T*>(to)[i] = from[t.index[at(i)]];
      });
      return;
    }
    for (int64_t i = 0; i < t.out; ++i) {
      if (!t.identity && i > 0 && t.index[at(i)] == t.index[at(i - 1)]) {
        std::memcpy(to + size_ * at(i * out_[d]), to + size_ * at((i - 1) * out_[d]), size_ * at(out_[d]));
      } else {
        copy(d + 1, out + i * out_[d], in + (t.identity ? i : t.index[at(i)]) * in_[d]);
      }
    }
  }

  size_t size_;
  const std::vector<Taps>& axes_;
  const Tensor& x_;
  Tensor y_;
  Shape in_, out_;
  size_t last_ = 0;       ///< from this axis on nothing is resized
  int64_t run_ = 1;       ///< elements of those axes
  bool doubles_ = false;  ///< the last resized axis repeats each element once
};

Tensor pick(const Tensor& x, const std::vector<Taps>& axes, float extrapolation) {
  const Tensor value = x.dtype() == DType::String ? Tensor(DType::String, {}) : cast(Tensor::scalar(extrapolation), x.dtype());
  return move_elements({x, value}, [&](const std::vector<Tensor>& in) {
    Tensor y = Picker(in[0], axes).result();
    const size_t size = element_bytes(y.dtype());
    each_outside(axes, [&](int64_t e) { std::memcpy(y.mutable_raw() + size * at(e), in[1].raw(), size); });
    return y;
  });
}

void resize(KernelContext& c, const ResizeSpec& s, const std::vector<float>& scales, const std::vector<int64_t>& sizes,
            const std::vector<float>& roi) {
  Layout layout;
  const Tensor& x = c.in_any(0, layout);
  std::vector<Taps> axes;
  for (const AxisPlan& a : plan_resize(s, x.shape(), scales, sizes, roi)) {
    if (a.in == 0 && a.out != 0) malformed("Resize of an empty tensor of shape " + to_string(x.shape()));
    axes.push_back(taps_of(s, a));
  }
  const Shape shape = output_shape(axes);
  if (std::all_of(axes.begin(), axes.end(), [](const Taps& t) { return t.identity; })) return c.set(0, x, layout);
  Shape memory = x.shape();
  if (layout == Layout::ChannelsLast) {  // as the axes lie in memory
    std::rotate(axes.begin() + 1, axes.begin() + 2, axes.end());
    std::rotate(memory.begin() + 1, memory.begin() + 2, memory.end());
  }
  const Tensor lying = x.reshaped(memory);
  if (element_count(shape) == 0) return c.set(0, Tensor(x.dtype(), shape));
  const Tensor y = s.mode == Interpolation::Nearest ? pick(lying, axes, s.extrapolation) : interpolate(lying, axes, s);
  c.set(0, y.reshaped(shape), layout);
}

std::vector<float> floats(KernelContext& c, size_t i) {
  return c.inputs() > i && c.has(i) ? to_vector<float>(c.in(i)) : std::vector<float>{};
}

std::unique_ptr<Kernel> upsample_attribute(const KernelSpec& spec) {
  return make_kernel([s = ResizeSpec::simple(spec.node), scales = spec.node.floats("scales")](KernelContext& c) { resize(c, s, scales, {}, {}); });
}

/// Upsample-9 and Resize-10: X, scales.
std::unique_ptr<Kernel> resize_by_scales(const KernelSpec& spec) {
  return make_kernel([s = ResizeSpec::simple(spec.node)](KernelContext& c) { resize(c, s, floats(c, 1), {}, {}); });
}

std::unique_ptr<Kernel> resize_full(const KernelSpec& spec) {
  return make_kernel([s = ResizeSpec::full(spec.node)](KernelContext& c) {
    const std::vector<int64_t> sizes = c.inputs() > 3 && c.has(3) ? integers(c.in(3)) : std::vector<int64_t>{};
    resize(c, s, sizes.empty() ? floats(c, 2) : std::vector<float>{}, sizes, floats(c, 1));
  });
}

int64_t output_length(double length) {
  if (!(length >= 0 && length < 2147483648.0)) malformed("Resize's output would have a dimension of " + std::to_string(length));
  return static_cast<int64_t>(length);
}

Interpolation interpolation_of(const std::string& name) {
  return choice<Interpolation>("interpolation mode", name,
                               {{"nearest", Interpolation::Nearest},
                                {"linear", Interpolation::Linear},
                                {"bilinear", Interpolation::Linear},
                                {"cubic", Interpolation::Cubic}});
}

}  // namespace

ResizeSpec ResizeSpec::simple(const Node& node) {
  ResizeSpec s;
  s.mode = interpolation_of(node.s("mode", "nearest"));
  return s;
}

ResizeSpec ResizeSpec::full(const Node& node) {
  ResizeSpec s = simple(node);
  s.coordinates = choice<Coordinates>("coordinate transformation", node.s("coordinate_transformation_mode", "half_pixel"),
                                      {{"half_pixel", Coordinates::HalfPixel},
                                       {"half_pixel_symmetric", Coordinates::HalfPixelSymmetric},
                                       {"pytorch_half_pixel", Coordinates::PytorchHalfPixel},
                                       {"align_corners", Coordinates::AlignCorners},
                                       {"asymmetric", Coordinates::Asymmetric},
                                       {"tf_half_pixel_for_nn", Coordinates::TfHalfPixelForNn},
                                       {"tf_crop_and_resize", Coordinates::TfCropAndResize}});
  s.nearest = choice<Nearest>("nearest mode", node.s("nearest_mode", "round_prefer_floor"),
                              {{"round_prefer_floor", Nearest::PreferFloor},
                               {"round_prefer_ceil", Nearest::PreferCeil},
                               {"floor", Nearest::Floor},
                               {"ceil", Nearest::Ceil}});
  s.aspect = choice<Aspect>("aspect ratio policy", node.s("keep_aspect_ratio_policy", "stretch"),
                            {{"stretch", Aspect::Stretch}, {"not_larger", Aspect::NotLarger}, {"not_smaller", Aspect::NotSmaller}});
  s.antialias = node.i("antialias", 0) != 0;
  s.exclude_outside = node.i("exclude_outside", 0) != 0;
  s.cubic_a = node.f("cubic_coeff_a", -0.75F);
  s.extrapolation = node.f("extrapolation_value", 0);
  s.has_axes = node.find("axes") != nullptr;
  s.axes = node.ints("axes");
  return s;
}

std::vector<AxisPlan> plan_resize(const ResizeSpec& s, const Shape& shape, const std::vector<float>& scales, const std::vector<int64_t>& sizes,
                           const std::vector<float>& roi) {
  std::vector<int64_t> axes = s.axes;
  const auto rank = static_cast<int64_t>(shape.size());
  if (!s.has_axes)
    for (int64_t i = 0; i < rank; ++i) axes.push_back(i);
  axes = normal_axes(axes, rank);
  std::vector<AxisPlan> all;
  for (const int64_t n : shape) all.push_back({n, n});
  if (scales.empty() == sizes.empty()) malformed("Resize needs either scales or sizes");
  if ((scales.empty() ? sizes.size() : scales.size()) != axes.size()) malformed("Resize has as many scales or sizes as axes");
  float common = s.aspect == Aspect::NotLarger ? std::numeric_limits<float>::max() : 0;
  for (size_t k = 0; k < axes.size(); ++k) {
    AxisPlan& a = all[at(axes[k])];
    if (s.coordinates == Coordinates::TfCropAndResize) {
      if (roi.size() != 2 * axes.size())
        malformed("Resize's region has " + std::to_string(roi.size()) + " numbers for " + std::to_string(axes.size()) + " axes");
      a.roi_start = roi[k];
      a.roi_end = roi[k + axes.size()];
    }
    if (sizes.empty()) {
      a.scale = scales[k];
      if (!(a.scale > 0)) malformed("Resize with a scale of " + std::to_string(a.scale));
      a.out = output_length(std::floor(static_cast<float>(a.in) * (a.roi_end - a.roi_start) * a.scale));
    } else {
      a.out = output_length(static_cast<double>(sizes[k]));
      if (a.in) a.scale = static_cast<float>(a.out) / static_cast<float>(a.in);
    }
    common = s.aspect == Aspect::NotLarger ? std::min(common, a.scale) : std::max(common, a.scale);
  }
  if (!sizes.empty() && s.aspect != Aspect::Stretch) {
    for (const int64_t axis : axes) {
      AxisPlan& a = all[at(axis)];
      a.scale = common;
      a.out = output_length(std::floor(static_cast<double>(common) * static_cast<double>(a.in) + 0.5));
    }
  }
  return all;
}

int64_t tap_width(const Sampling& s, const AxisPlan& a) {
  if (a.in > std::numeric_limits<int32_t>::max()) unsupported("Resize of a dimension of " + std::to_string(a.in));
  const float stretch = s.antialias ? std::min(a.scale, 1.0F) : 1.0F;
  const float reach = (s.mode == Interpolation::Linear ? 1.0F : 2.0F) / stretch;
  const bool nearest = s.mode == Interpolation::Nearest;
  if (!nearest && !(reach < 1 << 19)) unsupported("Resize with a filter that reaches over more than 524288 elements");
  for (const int64_t i : {int64_t{0}, a.out - 1})  // those between lie between
    if (a.out > 0 && !(std::abs(source_of(s, a, static_cast<float>(i))) < 1e9F)) malformed("Resize's scale or region leads too far outside");
  return nearest ? 1 : 2 * static_cast<int64_t>(std::ceil(reach)) + (stretch < 1 ? 1 : 0);
}

std::vector<size_t> resample_order(const std::vector<AxisPlan>& axes) {
  std::vector<size_t> order;
  for (size_t d = 0; d < axes.size(); ++d)
    if (!axes[d].identity()) order.push_back(d);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int64_t first = axes[a].out * axes[b].in, second = axes[b].out * axes[a].in;
    return first != second ? first < second : axes[a].out > axes[a].in ? a > b : a < b;
  });
  return order;
}

std::vector<OpDef> op_resize() {
  return {{.name = "Upsample", .since = 7, .until = 8, .cpu = &upsample_attribute},
          {.name = "Upsample", .since = 9, .cpu = &resize_by_scales},
          {.name = "Resize", .since = 10, .until = 10, .cpu = &resize_by_scales},
          {.name = "Resize", .since = 11, .cpu = &resize_full}};
}

}  // namespace infopt
