// Root mean square and layer normalization from their pieces, over the last axis, in one pass over each row:
// x · 1/√(mean(x²) + ε) · gain, and d / √(mean(d²) + ε) · gain + bias with d = x − mean(x).
#include "lib/ops/row_norm.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/fusions/value_facts.h"

namespace infopt {
namespace {

struct Norm {
  ValueId x = kNone, gain = kNone, bias = kNone;
  float epsilon = 0;
  bool centered = false;
  std::vector<const Node*> covers = {};
};

/// A constant row of more than one float32.
bool is_row(PlanView& view, ValueId value) {
  const Tensor* t = view.constant(value);
  return t && t->dtype() == DType::F32 && t->rank() == 1 && t->size() > 1;
}

class Matcher {
 public:
  explicit Matcher(PlanView& view) : view_(view) {}

  std::optional<Norm> match(const Node& last) {
    const Node* mul = &last;
    if (is_binary(mul, "Add")) {
      const auto bias = row_operand(*mul);
      if (!bias) return std::nullopt;
      norm_.bias = mul->input(*bias);
      mul = step(other_input(*mul, *bias));
    }
    if (!is_binary(mul, "Mul")) return std::nullopt;
    const auto gain = row_operand(*mul);
    if (!gain) return std::nullopt;
    norm_.gain = mul->input(*gain);
    const Node* scaled = step(other_input(*mul, *gain));
    if (!scaled || !match_scaled(*scaled)) return std::nullopt;
    if (norm_.bias != kNone && !norm_.centered) return std::nullopt;
    if (!is_float32(view_, norm_.gain) || !inner_values_unseen(last)) return std::nullopt;
    return norm_;
  }

 private:
  std::optional<size_t> row_operand(const Node& node) const {
    for (size_t i : {0u, 1u})
      if (is_row(view_, node.input(i)) && !view_.constant(node.input(1 - i))) return i;
    return std::nullopt;
  }

  /// The value's maker, which is covered from now on; past Casts to float32.
  const Node* step(ValueId value) {
    const Node* node = view_.constant(value) ? nullptr : view_.producer(value);
    if (!node) return nullptr;
    norm_.covers.push_back(node);
    return node->is("Cast") && node->i("to", 0) == static_cast<int64_t>(DType::F32) && is_float32(view_, node->input(0)) ? step(node->input(0)) : node;
  }

  /// d / s or d · (1/s), with s = √(mean(d²) + ε).
  bool match_scaled(const Node& node) {
    if (is_binary(&node, "Div")) return match_root(node.input(1)) && match_deviation(node.input(0));
    if (!is_binary(&node, "Mul")) return false;
    const Norm before = norm_;
    for (size_t i : {0u, 1u}) {
      norm_ = before;
      const Node* inverse = step(node.input(i));
      if (!inverse) continue;
      const bool reciprocal = inverse->is("Reciprocal"), quotient = is_binary(inverse, "Div") && scalar_constant(view_, inverse->input(0)) == 1.0f;
      if (!reciprocal && !quotient) continue;
      if (match_root(inverse->input(quotient ? 1 : 0)) && match_deviation(node.input(1 - i))) return true;
    }
    return false;
  }

  bool match_root(ValueId value) {
    const Node* root = step(value);
    if (!root || !(root->is("Sqrt") || (is_binary(root, "Pow") && scalar_constant(view_, root->input(1)) == 0.5f))) return false;
    const Node* add = step(root->input(0));
    if (!is_binary(add, "Add")) return false;
    for (size_t i : {0u, 1u}) {
      const std::optional<float> epsilon = scalar_constant(view_, add->input(i));
      if (!epsilon) continue;
      norm_.epsilon = *epsilon;
      const Node* mean = step(add->input(1 - i));
      if (!is_mean(mean)) return false;
      const Node* square = step(mean->input(0));
      const bool product = is_binary(square, "Mul") && square->input(0) == square->input(1);
      if (!product && !(is_binary(square, "Pow") && scalar_constant(view_, square->input(1)) == 2.0f)) return false;
      squared_ = square->input(0);
      return true;
    }
    return false;
  }

  /// What is scaled is what was squared: x itself, or x − mean(x), perhaps computed twice.
  bool match_deviation(ValueId value) {
    if (centered_from(value) == kNone) {
      norm_.x = value;
      return value == squared_;
    }
    norm_.x = centered_from(value);
    norm_.centered = true;
    if (centered_from(squared_) != norm_.x) return false;
    for (ValueId v : {value, squared_}) step(view_.producer(v)->input(1)), step(v);
    return true;
  }

  ValueId centered_from(ValueId value) const {
    const Node* sub = view_.producer(value);
    if (!is_binary(sub, "Sub")) return kNone;
    const Node* mean = view_.producer(sub->input(1));
    return is_mean(mean) && mean->input(0) == sub->input(0) ? sub->input(0) : kNone;
  }

  bool is_mean(const Node* node) const {
    if (!node || !node->is("ReduceMean") || node->i("keepdims", 1) != 1) return false;
    std::vector<int64_t> axes = node->ints("axes");
    if (node->input(1) != kNone) {
      const Tensor* t = view_.constant(node->input(1));
      if (!t || t->dtype() != DType::I64) return false;
      axes = to_vector<int64_t>(*t);
    }
    return axes.size() == 1 && (axes[0] == -1 || (axes[0] > 0 && axes[0] + 1 == rank_of(view_, node->input(0))));
  }

  /// Nobody else reads what the covered nodes make.
  bool inner_values_unseen(const Node& last) {
    const auto inside = [&](NodeId id) { return id == last.id || std::any_of(norm_.covers.begin(), norm_.covers.end(), [&](const Node* n) { return n->id == id; }); };
    for (const Node* node : norm_.covers) {
      const ValueId value = node->outputs[0];
      const auto& uses = view_.graph().value(value).uses;
      if (!view_.hidden(value) || !std::all_of(uses.begin(), uses.end(), [&](const Use& u) { return inside(u.node); })) return false;
    }
    return true;
  }

  PlanView& view_;
  Norm norm_;
  ValueId squared_ = kNone;
};

class RowNormKernel : public Kernel {
 public:
  RowNormKernel(Tensor gain, Tensor bias, float epsilon, bool centered) : gain_(std::move(gain)), bias_(std::move(bias)), epsilon_(epsilon), centered_(centered) {}

  void run(KernelContext& context) const override {
    const Tensor& x = context.in(0);
    if (x.dtype() != DType::F32) throw Error(ErrorKind::Malformed, "a normalization of " + std::string(name_of(x.dtype())) + " by float32");
    if (x.rank() < 1) throw Error(ErrorKind::Malformed, "a normalization of one number");
    const int64_t n = gain_.size();
    if (bias_.defined() && bias_.size() != n) throw Error(ErrorKind::Malformed, "a gain of " + std::to_string(n) + " and a bias of " + std::to_string(bias_.size()));
    Tensor wide;
    if (x.dim(-1) == 1) {  // one number a row, which the gain makes n: as many equal ones have the same mean
      Shape shape = x.shape();
      shape.back() = n;
      wide = Tensor(DType::F32, shape);
      for (int64_t i = 0; i < wide.size(); ++i) wide.mutable_data<float>()[i] = x.data<float>()[i / n];
    }
    const Shape shape = wide.defined() ? wide.shape() : x.shape();
    if (shape.back() != n) throw Error(ErrorKind::Malformed, "the shape " + to_string(shape) + " doesn't end with the gain's " + std::to_string(n));
    const float* from = wide.defined() ? wide.data<float>() : x.data<float>();
    Tensor& y = wide.defined() ? context.out(0, DType::F32, shape) : context.out_reusing(0, 0, DType::F32, shape);
    float* to = y.mutable_data<float>();
    const float *gain = gain_.data<float>(), *bias = bias_.defined() ? bias_.data<float>() : nullptr;
    constexpr int64_t kLeastElements = 1 << 14;
    share_work(y.size() / n, std::max<int64_t>(1, kLeastElements / n), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const Moments<float> m = centered_ ? row_moments(from + r * n, n, epsilon_) : Moments<float>{0.0f, inverse_rms(from + r * n, n, epsilon_)};
        normalize_row(from + r * n, to + r * n, n, m.mean, m.inverse_deviation, gain, bias);
      }
    });
  }

  std::string describe() const override { return centered_ ? "float32 layer normalization of rows" : "float32 root mean square normalization of rows"; }

 private:
  Tensor gain_, bias_;
  float epsilon_;
  bool centered_;
};

}  // namespace

std::optional<FusedStep> fuse_row_norm(PlanView& view, const Node& node) {
  const std::optional<Norm> norm = Matcher(view).match(node);
  if (!norm) return std::nullopt;
  FusedStep step;
  step.inputs = {norm->x};
  for (const Node* covered : norm->covers) step.covers.push_back(covered->id);
  FusedRowNorm how{*view.constant(norm->gain), norm->bias == kNone ? Tensor() : *view.constant(norm->bias), norm->epsilon, norm->centered};
  if (const Device* device = view.device()) step.kernel = device->row_norm(std::move(how));
  else step.kernel = std::make_unique<RowNormKernel>(how.gain, how.bias, how.epsilon, how.centered);
  return step;
}

}  // namespace infopt
