// A float32 convolution (on a device one of 16-bit floats too) with its neighbours: a zero Pad before it, BatchNormalization, a residual and bounds, HardSwish, GELU or SiLU behind it.
// Weights of which many are zero are multiplied without the zeros, also where the convolution stands alone.
#include <algorithm>
#include <cmath>
#include <functional>
#include <mutex>

#include "lib/base/error.h"
#include "lib/ops/broadcast.h"
#include "lib/runtime/cpu/convolution_engines.h"
#include "lib/runtime/cpu/float_depthwise.h"
#include "lib/runtime/cpu/post_activation.h"
#include "lib/runtime/cpu/sparse_conv.h"
#include "lib/runtime/fusions/activated.h"
#include "lib/runtime/fusions/pads.h"
#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/layout.h"
#include "lib/runtime/window.h"

namespace infopt {
namespace {

struct Found {
  const Node *conv = nullptr, *pad = nullptr, *norm = nullptr, *add = nullptr, *bounds = nullptr;
  PostActivation post;
  std::vector<const Node*> pieces = {};  ///< of the activation, before `bounds`
  ValueId residual = kNone;
  std::vector<int64_t> extra;  ///< pads that the Pad adds: those before each spatial axis, then those behind
};

bool is_half(DType t) { return t == DType::F16 || t == DType::BF16; }

/// x·scale + offset by channel, from a BatchNormalization with constant statistics.
bool channel_line(PlanView& view, const Node& norm, int64_t channels, std::vector<float>& scale, std::vector<float>& offset) {
  if (norm.i("training_mode", 0) != 0 || norm.outputs.size() != 1) return false;
  std::vector<float> t[4];
  for (size_t i = 0; i < 4; ++i) {
    const Tensor* given = view.constant(norm.input(i + 1));
    if (!given || !(given->dtype() == DType::F32 || (view.device() && is_half(given->dtype()))) || given->size() != channels) return false;
    t[i] = to_vector<float>(*given);
  }
  const double epsilon = norm.f("epsilon", 1e-5f);
  for (int64_t c = 0; c < channels; ++c) {
    const auto i = static_cast<size_t>(c);
    const double by = t[0][i] / std::sqrt(t[3][i] + epsilon);
    scale.push_back(static_cast<float>(by));
    offset.push_back(static_cast<float>(t[1][i] - t[2][i] * by));
    if (!std::isfinite(scale.back()) || !std::isfinite(offset.back())) return false;
  }
  return true;
}

class FusedConvKernel : public Kernel {
 public:
  /// `sparse`: the same weights by taps without their zeros, or null.
  FusedConvKernel(const Found& found, Tensor weights, Tensor bias, std::unique_ptr<cpu::SparseProduct> sparse)
      : window_(WindowAttributes::of(*found.conv)), extra_(found.extra), groups_(found.conv->i("group", 1)), post_(found.post), weight_shape_(weights.shape()),
        weights_(sparse ? Tensor() : std::move(weights)), bias_(std::move(bias)), residual_(found.residual != kNone), sparse_(std::move(sparse)) {}

  /// Inputs: x, and the residual if there is one.
  void run(KernelContext& context) const override {
    Layout layout;
    const Tensor& given = context.in_any(0, layout);
    if (given.dtype() != DType::F32) throw Error(ErrorKind::Malformed, "float32 weights for " + std::string(name_of(given.dtype())));
    if (given.rank() != static_cast<int64_t>(weight_shape_.size()) || given.dim(1) != weight_shape_[1] * groups_ || groups_ < 1 || weight_shape_[0] % groups_ != 0)
      throw Error(ErrorKind::Malformed, "an input of " + to_string(given.shape()) + " doesn't fit weights of " + to_string(weight_shape_) + " in " + std::to_string(groups_) + " groups");
    Tensor x = convert_layout(given, layout, Layout::ChannelsLast);
    Shape spatial(x.shape().begin() + 2, x.shape().end());
    const Shape kernel(weight_shape_.begin() + 2, weight_shape_.end());
    Window w = window_of(spatial, kernel);
    if (x.size() == 0) pad_nothing(x, spatial, w);
    Shape shape{x.dim(0), weight_shape_[0]};
    shape.insert(shape.end(), w.out.begin(), w.out.end());
    if (!residual_) {
      Tensor& y = context.out(0, DType::F32, shape, Layout::ChannelsLast);
      return convolve(w, x, false, post_, y);
    }
    Layout other;
    const Tensor& residual = context.in_any(1, other);
    if (residual.dtype() != DType::F32) throw Error(ErrorKind::Malformed, "a sum of float32 and " + std::string(name_of(residual.dtype())));
    if (residual.shape() != shape || some_window_is_outside(w, spatial)) return run_apart(context, w, x, shape);
    if (other == Layout::ChannelsLast) {
      const std::byte* from = residual.raw();
      Tensor& y = context.out_reusing(0, 1, DType::F32, shape, Layout::ChannelsLast);
      if (y.raw() != from) std::copy_n(from, y.bytes(), y.mutable_raw());
      return convolve(w, x, true, post_, y);
    }
    Tensor y = convert_layout(residual, other, Layout::ChannelsLast);
    if (y.raw() == residual.raw()) y = y.clone();
    convolve(w, x, true, post_, y);
    context.set(0, std::move(y), Layout::ChannelsLast);
  }

  ByItem by_item() const override { return ByItem::All; }
  std::string describe() const override { return std::string("float32 convolution, ") + (sparse_ ? "channels last, " + sparse_->describe() : is_own() ? "depthwise, channels last" : "oneDNN, channels last") + (residual_ ? ", with the residual" : "") + (post_.kind != PostActivation::None ? ", with the activation" : ""); }

 private:
  bool is_own() const { return cpu::is_plain_depthwise({{}, window_.dilations, {}, {}, groups_, false, {}}, weight_shape_); }

  /// y, channels last, from x, or added to what y holds.
  void convolve(const Window& w, const Tensor& x, bool accumulate, const PostActivation& post, Tensor& y) const {
    const float* bias = bias_.defined() ? bias_.data<float>() : nullptr;
    if (const int64_t pixels = y.size() / std::max<int64_t>(1, weight_shape_[0]); sparse_ && sparse_->wins(pixels)) {
      if (!is_product(w)) return cpu::sparse_convolve(*sparse_, w, x, bias, post, accumulate, y);
      return sparse_->run(x.data<float>(), pixels, bias, post, accumulate, y.mutable_data<float>());
    }
    engines_.get(w, groups_, false, post, accumulate).run(x, dense_weights(), true, bias ? &bias_ : nullptr, y);
  }

  /// Every output pixel sees the input pixel at its place.
  static bool is_product(const Window& w) {
    const auto all = [](const std::vector<int64_t>& list, int64_t v) { return std::all_of(list.begin(), list.end(), [v](int64_t i) { return i == v; }); };
    return all(w.kernel, 1) && all(w.strides, 1) && all(w.pads_begin, 0) && all(w.pads_end, 0);
  }

  Tensor dense_weights() const {
    if (!sparse_) return weights_;
    std::lock_guard lock(mutex_);
    if (!unpacked_.defined()) unpacked_ = cpu::from_taps(sparse_->weights(), weight_shape_);
    return unpacked_;
  }

  Window window_of(Shape spatial, const Shape& kernel) const {
    const size_t n = spatial.size();
    if (extra_.empty()) return resolve_window(window_, spatial, kernel);
    for (size_t i = 0; i < n; ++i) spatial[i] += extra_[i] + extra_[n + i];
    Window w = resolve_window(window_, spatial, kernel);
    for (size_t i = 0; i < n; ++i) w.pads_begin[i] += extra_[i], w.pads_end[i] += extra_[n + i];
    return w;
  }

  /// oneDNN takes no empty input: what a Pad makes of one is all zeros.
  void pad_nothing(Tensor& x, Shape& spatial, Window& w) const {
    if (extra_.empty()) return;
    const size_t n = spatial.size();
    Shape shape = x.shape();
    for (size_t i = 0; i < n; ++i) {
      shape[i + 2] = spatial[i] += extra_[i] + extra_[n + i];
      w.pads_begin[i] -= extra_[i], w.pads_end[i] -= extra_[n + i];
    }
    x = Tensor::zeros(DType::F32, shape);
  }

  /// Whether a window may see nothing but pads along an axis: there oneDNN 2.6 (brgconv) loses what it should add to, or crashes.
  static bool some_window_is_outside(const Window& w, const Shape& spatial) {
    for (size_t i = 0; i < spatial.size(); ++i) {
      const int64_t extent = (w.kernel[i] - 1) * w.dilations[i] + 1;
      if (w.pads_begin[i] >= extent || w.pads_end[i] >= extent || w.dilations[i] > spatial[i]) return true;
    }
    return false;
  }

  /// The sum, of shapes that may broadcast, and the bounds by themselves.
  void run_apart(KernelContext& context, const Window& w, const Tensor& x, const Shape& shape) const {
    Tensor first(DType::F32, shape);
    convolve(w, x, false, {}, first);
    first = convert_layout(first, Layout::ChannelsLast, Layout::Plain);
    const Tensor& residual = context.in(1);
    const Shape result = broadcast_shape(shape, residual.shape());
    Tensor& y = context.out(0, DType::F32, result);
    add_floats({DType::F32, first.raw(), shape}, {DType::F32, residual.raw(), residual.shape()}, result, y);
    cpu::activate(post_, y.mutable_data<float>(), y.size());
  }

  static void add_floats(const Operand& a, const Operand& b, const Shape& result, Tensor& y) {
    run_binary_loop([](const void* pa, const void* pb, void* py, const BinaryRows& r) { binary_loop<float, float, std::plus<float>>(pa, pb, py, r); }, a, b, result, y.mutable_raw(), DType::F32);
  }

  WindowAttributes window_;
  std::vector<int64_t> extra_;
  int64_t groups_;
  PostActivation post_;
  Shape weight_shape_;
  Tensor weights_, bias_;
  bool residual_;
  std::unique_ptr<cpu::SparseProduct> sparse_;
  mutable std::mutex mutex_;
  mutable Tensor unpacked_;  ///< of the sparse ones, where a run needs them
  cpu::ConvolutionEngines engines_;
};

/// Reads the pattern backwards; false where there is no convolution with constant float weights.
bool find_pattern(PlanView& view, const Node& node, Found& f) {
  const Node* at = &node;
  auto step_back = [&](ValueId v) { return at = view.only_for_one(v); };
  if (at->is("HardSwish")) f.post.kind = PostActivation::HardSwish;
  if (f.post.kind == PostActivation::HardSwish || as_bounds(view, *at, f.post)) {
    f.bounds = at;
    if (!step_back(at->input(0))) return false;
  } else if (const auto found = view.device() ? std::nullopt : activation_of(view, *at); found && only_inside(view, *found, *at)) {
    f.post = found->post;
    f.pieces = found->covers;
    f.bounds = at;
    at = view.producer(found->x);
    if (!at) return false;
  }
  if (at->is("Add") && at->inputs.size() == 2) {
    f.add = at;
    const Node* made = nullptr;
    for (size_t i : {0u, 1u}) {
      const Node* candidate = view.only_for_one(f.add->inputs[i]);
      if (!candidate || f.add->inputs[0] == f.add->inputs[1] || view.constant(f.add->inputs[1 - i])) continue;
      if (!candidate->is("Conv") && !candidate->is("BatchNormalization")) continue;
      // Of two convolutions the second operand's is taken last: its sum then finds the other one done.
      made = candidate;
      f.residual = f.add->inputs[1 - i];
    }
    if (!made) return false;
    at = made;
  }
  if (at->is("BatchNormalization")) {
    f.norm = at;
    if (!step_back(at->input(0))) return false;
  }
  if (!at->is("Conv")) return false;
  f.conv = at;
  const Tensor* weights = view.constant(at->input(1));
  if (!weights || !(weights->dtype() == DType::F32 || (view.device() && is_half(weights->dtype()))) || weights->rank() < 3 || weights->rank() > 5) return false;
  if (at->input(2) != kNone) {
    const Tensor* bias = view.constant(at->input(2));
    if (!bias || bias->shape() != Shape{weights->dim(0)} || bias->dtype() != weights->dtype()) return false;
  }
  const Node* pad = view.only_for_one(at->input(0));
  const std::string mode = at->s("auto_pad", "NOTSET");
  if (pad && (mode == "NOTSET" || mode == "VALID")) {
    f.extra = zero_pads(view, *pad, static_cast<size_t>(weights->rank() - 2));
    if (!f.extra.empty()) f.pad = pad;
  }
  return true;
}

/// Where many of the weights are zero.
std::unique_ptr<cpu::SparseProduct> sparse_product(PlanView& view, const Found& f, const Tensor& weights) {
  if (view.device() || f.conv->i("group", 1) != 1 || weights.rank() > 4 || !cpu::many_zeros(weights)) return nullptr;
  const auto one = [](int64_t i) { return i == 1; };
  const std::vector<int64_t> strides = f.conv->ints("strides");
  const bool as_they_lie = std::all_of(strides.begin(), strides.end(), one) && std::all_of(weights.shape().begin() + 2, weights.shape().end(), one);
  std::string why;
  auto sparse = cpu::SparseProduct::make(cpu::by_taps(weights), true, &why, as_they_lie ? 0 : weights.dim(1));
  if (!why.empty()) view.refuse(*f.conv, why);
  if (sparse) weights.release_pages();
  return sparse;
}

}  // namespace

std::optional<FusedStep> fuse_float_conv(PlanView& view, const Node& node) {
  Found f;
  if (!find_pattern(view, node, f)) return std::nullopt;
  const bool joins = f.bounds || f.add || f.norm || f.pad;
  Tensor weights = *view.constant(f.conv->input(1));
  Tensor bias = f.conv->input(2) == kNone ? Tensor() : *view.constant(f.conv->input(2));
  if (f.norm) {
    std::vector<float> scale, offset;
    if (!channel_line(view, *f.norm, weights.dim(0), scale, offset)) return std::nullopt;
    const int64_t channels = weights.dim(0), each = channels == 0 ? 0 : weights.size() / channels;
    const DType type = weights.dtype();
    Tensor scaled = type == DType::F32 ? weights.clone() : cast(weights, DType::F32), shifted(DType::F32, {channels});
    if (bias.defined()) bias = cast(bias, DType::F32);
    float *w = scaled.mutable_data<float>(), *b = shifted.mutable_data<float>();
    for (int64_t c = 0; c < channels; ++c) {
      const float by = scale[static_cast<size_t>(c)];
      for (int64_t i = 0; i < each; ++i) w[c * each + i] *= by;
      b[c] = (bias.defined() ? bias.data<float>()[c] * by : 0.0f) + offset[static_cast<size_t>(c)];
    }
    weights.release_pages();
    weights = cast(scaled, type);
    bias = cast(shifted, type);
  }
  FusedStep step;
  step.inputs = {f.pad ? f.pad->input(0) : f.conv->input(0)};
  if (f.residual != kNone) step.inputs.push_back(f.residual);
  for (const Node* covered : {f.pad, f.norm, f.add, f.bounds})
    if (covered) step.covers.push_back(covered->id);
  for (const Node* covered : f.pieces) step.covers.push_back(covered->id);
  step.named = f.conv->id;
  if (const Device* device = view.device()) {
    step.kernel = device->conv({WindowAttributes::of(*f.conv), f.extra, f.conv->i("group", 1), f.post, weights, bias, f.residual != kNone, !joins});
    if (!step.kernel) return std::nullopt;
    return step;
  }
  auto sparse = sparse_product(view, f, weights);
  if (!joins && !sparse) return std::nullopt;
  step.kernel = std::make_unique<FusedConvKernel>(f, std::move(weights), std::move(bias), std::move(sparse));
  return step;
}

}  // namespace infopt
