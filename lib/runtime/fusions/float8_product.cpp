// DequantizeLinear → MatMul or Gemm on float8 codes (E4M3FN) with constant weights: a product of the codes themselves. What quantizes the
// result stays a node of its own.
#include <algorithm>
#include <cmath>

#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/fusions/value_facts.h"

namespace infopt {
namespace {

constexpr DType kCodes = DType::F8E4M3FN;

/// A DequantizeLinear of float8 codes with constant scales and no zero point but 0.
struct Float8Codes {
  ValueId value = kNone;
  const Tensor* scale = nullptr;
  int64_t axis = 1;
};
std::optional<Float8Codes> float8_codes(PlanView& view, ValueId value) {
  const Node* node = view.producer(value);
  if (!node || !node->is("DequantizeLinear") || node->input(0) == kNone || node->i("block_size", 0) != 0) return std::nullopt;
  const Tensor *scale = view.constant(node->input(1)), *zero = view.constant(node->input(2)), *codes = view.constant(node->input(0));
  if (!scale || (node->input(2) != kNone && !zero) || scale->rank() > 1) return std::nullopt;
  if (scale->dtype() != DType::F32 && scale->dtype() != DType::F16 && scale->dtype() != DType::BF16) return std::nullopt;
  const int64_t to = node->i("output_dtype", 0);
  if (to != 0 && static_cast<DType>(to) != scale->dtype()) return std::nullopt;
  const DType type = zero ? zero->dtype() : codes ? codes->dtype() : view.graph().value(node->input(0)).type.dtype;
  if (type != kCodes) return std::nullopt;
  if (zero)
    for (float z : to_vector<float>(*zero))
      if (z != 0) return std::nullopt;
  for (float s : to_vector<float>(*scale))
    if (!std::isfinite(s) || s < 1e-12f || s > 1e12f) return std::nullopt;
  return Float8Codes{node->input(0), scale, node->i("axis", 1)};
}

struct FoundProduct {
  Float8Product how;
  FusedStep step;
};

std::optional<FoundProduct> find_product(PlanView& view, const Node& node) {
  FusedStep step;
  const Node* at = &node;
  ValueId bias = kNone;
  if (is_binary(at, "Add")) {
    for (size_t i : {0u, 1u}) {
      const Node* maker = view.only_for_one(node.input(i));
      if (maker && maker->is("MatMul") && view.constant(node.input(1 - i))) at = maker, bias = node.input(1 - i);
    }
    if (at == &node) return std::nullopt;
    step.covers.push_back(at->id);
  }
  Float8Product p;
  p.matrix = at->is("Gemm");
  if (!at->is("MatMul") && !(p.matrix && at->i("transA", 0) == 0 && at->f("alpha", 1) == 1 && at->f("beta", 1) == 1)) return std::nullopt;
  if (p.matrix) bias = at->input(2);
  p.transposed = p.matrix && at->i("transB", 0) != 0;
  const auto x = float8_codes(view, at->input(0)), w = float8_codes(view, at->input(1));
  const Tensor* weights = w ? view.constant(w->value) : nullptr;
  if (!x || !weights || weights->rank() != 2 || weights->dtype() != kCodes || x->scale->size() != 1 || x->scale->dtype() != w->scale->dtype()) return std::nullopt;
  const int64_t k = weights->dim(p.transposed ? 1 : 0), n = weights->dim(p.transposed ? 0 : 1), columns = p.transposed ? 0 : 1;
  if (k == 0 || n == 0 || k % 16 != 0 || n % 16 != 0) {
    view.refuse(*at, "a product of float8 needs sizes that are multiples of 16");
    return std::nullopt;
  }
  const auto scales = to_vector<float>(*w->scale);
  if (scales.size() != 1 && ((w->axis != columns && w->axis + 2 != columns) || static_cast<int64_t>(scales.size()) != n)) return std::nullopt;
  const float largest = *std::max_element(scales.begin(), scales.end());
  p.weights = *weights;
  p.type = w->scale->dtype();
  p.scale = to_vector<float>(*x->scale)[0] * largest;
  if (std::any_of(scales.begin(), scales.end(), [&](float s) { return s != largest; }))
    for (float s : scales) p.scales.push_back(s / largest);
  if (bias != kNone) {
    const Tensor* row = view.constant(bias);
    if (!row || row->dtype() != p.type || row->rank() != 1 || row->size() != n) return std::nullopt;
    p.bias = *row;
  }
  step.inputs = {x->value};
  step.named = at->id;
  return FoundProduct{std::move(p), std::move(step)};
}

}  // namespace

bool is_float8_product(PlanView& view, const Node& node) { return view.device() && find_product(view, node); }

std::optional<FusedStep> fuse_float8_product(PlanView& view, const Node& node) {
  const Device* device = view.device();
  if (!device) return std::nullopt;
  auto found = find_product(view, node);
  if (!found) return std::nullopt;
  found->step.kernel = device->float8_product(std::move(found->how));
  return std::move(found->step);
}

}  // namespace infopt
