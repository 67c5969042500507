// MatMulInteger → Cast → Mul by the scales → Add of a bias: dynamic quantization's product, straight to float32.
#include <algorithm>

#include "lib/base/error.h"
#include "lib/runtime/fusions/product_rows.h"
#include "lib/runtime/fusions/quantized.h"
#include "lib/runtime/fusions/rules.h"

namespace infopt {
namespace {

class DynamicProductKernel : public Kernel {
 public:
  /// `rank`: the most axes of a constant in it: a result of fewer gets axes of 1 in front.
  DynamicProductKernel(std::shared_ptr<const cpu::PackedInt8> weights, std::vector<float> scales, std::vector<float> bias, PostActivation bounds, bool has_zero, size_t rank)
      : weights_(std::move(weights)), scales_(std::move(scales)), bias_(std::move(bias)), bounds_(bounds), has_zero_(has_zero), rank_(rank) {}

  /// Inputs: codes, the activations' scale, their zero point if there is one.
  void run(KernelContext& context) const override {
    const Tensor& x = context.in(0);
    const float scale = to_scalar<float>(context.in(1));
    const int32_t zero = has_zero_ ? static_cast<int32_t>(to_scalar<int64_t>(context.in(2))) : 0;
    if (x.dtype() != DType::U8 && x.dtype() != DType::I8) throw Error(ErrorKind::Unsupported, "a product of codes of " + std::string(name_of(x.dtype())));
    if (x.rank() < 1 || x.dim(-1) != weights_->k()) throw Error(ErrorKind::Malformed, "an input of " + to_string(x.shape()) + " doesn't fit weights of " + std::to_string(weights_->k()) + " rows");
    std::vector<float> scales = scales_;
    for (float& s : scales) s = scale * s;
    cpu::Int8Epilogue epilogue;
    epilogue.output = DType::F32;
    epilogue.scale = scales.data();
    epilogue.float_bias = bias_.empty() ? nullptr : bias_.data();
    if (bounds_.kind == PostActivation::Clip) epilogue.low = bounds_.low, epilogue.high = bounds_.high;
    Shape shape = x.shape();
    shape.back() = weights_->n();
    if (shape.size() < rank_) shape.insert(shape.begin(), rank_ - shape.size(), 1);
    Tensor& y = context.out(0, DType::F32, shape);
    multiply_rows({x.raw(), x.dtype(), x.dim(-1), zero}, *weights_, epilogue, nullptr, y, weights_->n() == 0 ? 0 : y.size() / weights_->n());
  }

  std::string describe() const override { return "int8 product with dynamic activations, to float32"; }

 private:
  std::shared_ptr<const cpu::PackedInt8> weights_;
  std::vector<float> scales_, bias_;
  PostActivation bounds_;
  bool has_zero_;
  size_t rank_;
};

/// A constant of one float, or of `n` along the last axis.
std::vector<float> row_constant(PlanView& view, ValueId value, int64_t n, size_t& rank) {
  const Tensor* t = view.constant(value);
  if (n == 0 || !t || t->dtype() != DType::F32 || (t->size() != 1 && t->size() != n) || (t->size() == n && n != 1 && t->dim(-1) != n) || t->rank() > 2) return {};
  rank = std::max(rank, t->shape().size());
  std::vector<float> out(t->data<float>(), t->data<float>() + t->size());
  out.resize(static_cast<size_t>(n), out[0]);
  return out;
}

/// The one of two operands that isn't `known`.
ValueId other_operand(const Node& node, ValueId known) { return node.inputs[0] == known ? node.inputs[1] : node.inputs[0]; }

/// Mul(Cast(MatMulInteger), scales) read backwards from `value`.
struct Scaled {
  const Node *product = nullptr, *cast = nullptr, *scale = nullptr;
  ValueId scales = kNone;
};
std::optional<Scaled> scaled_product(PlanView& view, const Node& mul) {
  if (!mul.is("Mul") || mul.inputs.size() != 2) return std::nullopt;
  for (ValueId v : mul.inputs) {
    const Node* cast = view.only_for_one(v);
    if (!cast || !cast->is("Cast") || cast->i("to", 0) != 1) continue;
    const Node* product = view.only_for_one(cast->input(0));
    if (product && product->is("MatMulInteger")) return Scaled{product, cast, &mul, other_operand(mul, v)};
  }
  return std::nullopt;
}

}  // namespace

std::optional<FusedStep> fuse_dynamic_product(PlanView& view, const Node& node) {
  FusedStep step;
  PostActivation bounds;
  const Node* at = &node;
  if (as_bounds(view, *at, bounds)) {
    step.covers.push_back(at->id);
    at = view.only_for_one(at->input(0));
  }
  std::optional<Scaled> scaled;
  ValueId bias_value = kNone;
  if (at && at->is("Add") && at->inputs.size() == 2) {
    for (ValueId v : at->inputs) {
      const Node* mul = view.only_for_one(v);
      if (!mul || !(scaled = scaled_product(view, *mul))) continue;
      bias_value = other_operand(*at, v);
      if (!view.constant(bias_value)) return std::nullopt;
      break;
    }
    if (scaled) step.covers.push_back(at->id);
  } else if (at) {
    scaled = scaled_product(view, *at);
  }
  if (!scaled) return std::nullopt;
  const Node& product = *scaled->product;
  const Tensor *weights = view.constant(product.input(1)), *zeros = view.constant(product.input(3));
  if (!weights || weights->rank() != 2 || (weights->dtype() != DType::I8 && weights->dtype() != DType::U8) || (product.input(3) != kNone && !zeros)) return std::nullopt;
  const int64_t k = weights->dim(0), n = weights->dim(1);
  // The scale: one that the run knows, times constants of the weights.
  size_t rank = 0;
  std::vector<float> scales = row_constant(view, scaled->scales, n, rank);
  ValueId run_scale = kNone;
  if (scales.empty()) {
    const Node* both = view.producer(scaled->scales);
    if (!both || !both->is("Mul") || both->inputs.size() != 2) return std::nullopt;
    for (ValueId v : both->inputs) {
      scales = row_constant(view, v, n, rank);
      run_scale = other_operand(*both, v);
      if (!scales.empty()) break;
    }
    const Node* dynamic = view.producer(run_scale);
    if (scales.empty() || !dynamic || !dynamic->is("DynamicQuantizeLinear") || view.graph().value(run_scale).output_index != 1) return std::nullopt;
  }
  if (run_scale == kNone) return std::nullopt;
  const ValueId zero = product.input(2);
  const Tensor* fixed_zero = view.constant(zero);  // one for each row is possible, too
  if (zero != kNone && !(fixed_zero && fixed_zero->size() == 1) && !(view.producer(zero) == view.producer(run_scale) && view.graph().value(zero).output_index == 2)) return std::nullopt;
  std::vector<float> bias;
  if (bias_value != kNone && (bias = row_constant(view, bias_value, n, rank)).empty()) return std::nullopt;
  std::vector<int32_t> zero_points;
  if (zeros) {
    if (zeros->size() != 1 && zeros->size() != n) return std::nullopt;
    for (int64_t z : to_vector<int64_t>(*zeros)) zero_points.push_back(static_cast<int32_t>(z));
    zero_points.resize(static_cast<size_t>(n), zero_points[0]);
  }
  if (const Device* device = view.device()) {
    step.kernel = device->dynamic_product({*weights, zero_points, scales, bias, bounds, zero != kNone, rank});
    if (!step.kernel) return std::nullopt;
  }
  const auto packed = step.kernel ? nullptr : std::make_shared<const cpu::PackedInt8>(weights->raw(), weights->dtype(), k, n, n, 1, zero_points.empty() ? nullptr : zero_points.data());
  weights->release_pages();
  step.inputs = {product.input(0), run_scale};
  if (zero != kNone) step.inputs.push_back(zero);
  for (const Node* covered : {scaled->scale, scaled->cast, &product})
    if (covered->id != node.id) step.covers.push_back(covered->id);
  step.covers.erase(std::remove(step.covers.begin(), step.covers.end(), node.id), step.covers.end());
  step.named = product.id;
  if (!step.kernel) step.kernel = std::make_unique<DynamicProductKernel>(packed, std::move(scales), std::move(bias), bounds, zero != kNone, rank);
  return step;
}

}  // namespace infopt
