// Root mean square and layer normalization over the last axis, in one pass over each row:
// x · 1/√(mean(x²) + ε) · gain, and d / √(mean(d²) + ε) · gain + bias with d = x − mean(x),
// from their pieces or as one operator; with the Add that makes x, which is written too where others read it, and with the QuantizeLinear
// behind it, which leaves the rows themselves unwritten where nobody else reads them.
#include "lib/ops/row_norm.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/ops/broadcast.h"
#include "lib/ops/quantize_linear.h"
#include "lib/runtime/fusions/code_end.h"
#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/fusions/value_facts.h"

namespace infopt {
namespace {

struct Norm {
  ValueId x = kNone, gain = kNone, bias = kNone;
  ValueId addend = kNone;  ///< x is the sum of x and this
  bool keeps_sum = false;  ///< the sum is an output
  float epsilon = 0;
  bool centered = false;
  std::vector<const Node*> covers = {};
};

/// A constant row of more than one number.
bool is_row(PlanView& view, ValueId value, DType type = DType::F32) {
  const Tensor* t = view.constant(value);
  return t && t->dtype() == type && t->rank() == 1 && t->size() > 1;
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

/// LayerNormalization or RMSNormalization of float32, on a device of 16-bit floats too, by constant rows of the same type.
std::optional<Norm> norm_operator(PlanView& view, const Node& node) {
  const bool centered = node.is("LayerNormalization");
  if (!centered && !node.is("RMSNormalization")) return std::nullopt;
  const bool one_output = std::all_of(node.outputs.begin() + 1, node.outputs.end(), [](ValueId v) { return v == kNone; });
  const int64_t axis = node.i("axis", -1);
  if (!one_output || (axis != -1 && (axis < 1 || axis + 1 != rank_of(view, node.input(0))))) return std::nullopt;
  Norm norm{.x = node.input(0), .gain = node.input(1), .bias = node.input(2), .epsilon = node.f("epsilon", 1e-5f), .centered = centered};
  const Tensor* gain = view.constant(norm.gain);
  const DType type = gain ? gain->dtype() : DType::Undefined;
  if (type != DType::F32 && !(view.device() && (type == DType::F16 || type == DType::BF16))) return std::nullopt;
  if (!has_type(view, norm.x, type) || !is_row(view, norm.gain, type) || (norm.bias != kNone && !is_row(view, norm.bias, type))) return std::nullopt;
  return norm;
}

/// Takes the Add in that makes x, where no other rule wants it and whoever else reads the sum stands behind the last node. Float32, on a
/// device 16-bit floats too, whose sum is rounded before it is normalized.
void take_sum(PlanView& view, const Node& last, Norm& norm) {
  const Node* add = view.constant(norm.x) ? nullptr : view.producer(norm.x);
  if (!is_binary(add, "Add") || !view.hidden(norm.x) || view.constant(add->input(0)) || view.constant(add->input(1)) || view.taken(*add)) return;
  if (!has_type(view, norm.x, view.constant(norm.gain)->dtype())) return;
  const auto inside = [&](NodeId id) { return id == last.id || std::any_of(norm.covers.begin(), norm.covers.end(), [&](const Node* n) { return n->id == id; }); };
  for (const Use& use : view.graph().value(norm.x).uses) {
    if (inside(use.node)) continue;
    if (view.position(use.node) < view.position(last.id) || !view.hidden(last.outputs[0])) return;
    norm.keeps_sum = true;
  }
  norm.covers.push_back(add);
  norm.x = add->input(0);
  norm.addend = add->input(1);
}

class RowNormKernel : public Kernel {
 public:
  explicit RowNormKernel(FusedRowNorm how)
      : gain_(std::move(how.gain)), bias_(std::move(how.bias)), epsilon_(how.epsilon), centered_(how.centered), adds_(how.adds), keeps_sum_(how.keeps_sum), sum_output_(how.sum_output),
        codes_(how.codes), writes_rows_(!how.codes || how.keeps_rows), rows_output_(how.rows_output) {}

  void run(KernelContext& context) const override {
    const Tensor& x = floats(context, 0);
    if (bias_.defined() && bias_.size() != gain_.size())
      throw Error(ErrorKind::Malformed, "a gain of " + std::to_string(gain_.size()) + " and a bias of " + std::to_string(bias_.size()));
    if (!adds_) return normalize(context, x, nullptr, nullptr);
    const Tensor& other = floats(context, 1);
    if (x.shape() == other.shape() && ends_with_gain(x.shape())) {
      // The sum lies where it is kept, else where the result will be.
      Tensor* sum = keeps_sum_ ? &context.out_reusing(sum_output_, 0, DType::F32, x.shape()) : nullptr;
      return normalize(context, x, other.data<float>(), sum ? sum->mutable_data<float>() : nullptr);
    }
    const Shape shape = broadcast_shape(x.shape(), other.shape());
    Tensor sum(DType::F32, shape);
    struct Plus {
      float operator()(float a, float b) const { return a + b; }
    };
    run_binary_loop(binary_loop<float, float, Plus>, {DType::F32, x.raw(), x.shape()}, {DType::F32, other.raw(), other.shape()}, shape, sum.mutable_raw(), DType::F32);
    if (keeps_sum_) context.set(sum_output_, sum);
    normalize(context, sum, nullptr, nullptr);
  }

  std::string describe() const override {
    const std::string what = centered_ ? "float32 layer normalization of rows" : "float32 root mean square normalization of rows";
    return what + (adds_ ? ", with the sum before it" : "") + (codes_ ? ", to codes" : "");
  }

 private:
  static const Tensor& floats(KernelContext& context, size_t i) {
    const Tensor& x = context.in(i);
    if (x.dtype() != DType::F32) throw Error(ErrorKind::Malformed, "a normalization of " + std::string(name_of(x.dtype())) + " by float32");
    return x;
  }
  bool ends_with_gain(const Shape& shape) const { return !shape.empty() && shape.back() == gain_.size(); }

  /// Rows of x, or of x + other where there is one, which `sum` then gets, if not null.
  void normalize(KernelContext& context, const Tensor& x, const float* other, float* sum) const {
    if (x.rank() < 1) throw Error(ErrorKind::Malformed, "a normalization of one number");
    const int64_t n = gain_.size();
    Tensor wide;
    if (x.dim(-1) == 1) {  // one number a row, which the gain makes n: as many equal ones have the same mean
      Shape shape = x.shape();
      shape.back() = n;
      wide = Tensor(DType::F32, shape);
      for (int64_t i = 0; i < wide.size(); ++i) wide.mutable_data<float>()[i] = x.data<float>()[i / n];
    }
    const Shape shape = wide.defined() ? wide.shape() : x.shape();
    if (!ends_with_gain(shape)) throw Error(ErrorKind::Malformed, "the shape " + to_string(shape) + " doesn't end with the gain's " + std::to_string(n));
    const float* from = wide.defined() ? wide.data<float>() : x.data<float>();
    const bool fresh = wide.defined() || (adds_ && !other);  // what is normalized is no input
    float* to = nullptr;
    if (writes_rows_) to = (fresh ? context.out(rows_output_, DType::F32, shape) : context.out_reusing(rows_output_, sum ? 1 : 0, DType::F32, shape)).mutable_data<float>();
    uint8_t* codes = codes_ ? reinterpret_cast<uint8_t*>(context.out(0, codes_->type, shape).mutable_raw()) : nullptr;
    const float *gain = gain_.data<float>(), *bias = bias_.defined() ? bias_.data<float>() : nullptr;
    constexpr int64_t kLeastElements = 1 << 14;
    share_work(element_count(shape) / n, std::max<int64_t>(1, kLeastElements / n), [&](int64_t begin, int64_t end) {
      std::vector<float> own(to ? 0 : static_cast<size_t>(n));
      for (int64_t r = begin; r < end; ++r) {
        const float* row = from + r * n;
        float* result = to ? to + r * n : own.data();
        Moments<float> m;
        if (other) {
          float* total = sum ? sum + r * n : result;
          m = sum_moments(row, other + r * n, total, n, epsilon_, centered_);
          row = total;
        } else {
          m = centered_ ? row_moments(row, n, epsilon_) : Moments<float>{0.0f, inverse_rms(row, n, epsilon_)};
        }
        normalize_row(row, result, n, m.mean, m.inverse_deviation, gain, bias);
        if (codes) quantize_floats(result, codes + r * n, n, codes_->type, codes_->scale, codes_->zero, codes_->precision);
      }
    });
  }

  Tensor gain_, bias_;
  float epsilon_;
  bool centered_, adds_, keeps_sum_;
  size_t sum_output_;
  std::optional<CodeEnd> codes_;
  bool writes_rows_;
  size_t rows_output_;
};

bool is_norm(const Node& node) { return node.is("LayerNormalization") || node.is("RMSNormalization"); }

std::optional<Norm> find_norm(PlanView& view, const Node& last) { return is_norm(last) ? norm_operator(view, last) : Matcher(view).match(last); }

}  // namespace

std::optional<FusedStep> fuse_row_norm(PlanView& view, const Node& node) {
  const std::optional<CodeEnd> codes = code_end(view, node);
  bool keeps_rows = false;
  const Node* last = codes ? view.producer(node.input(0)) : &node;
  if (!last || (codes && !makes_input(view, node, keeps_rows))) return std::nullopt;
  std::optional<Norm> norm = find_norm(view, *last);
  if (!norm) return std::nullopt;
  if (codes) norm->covers.push_back(last);
  take_sum(view, node, *norm);
  if (codes && norm->addend == kNone) {
    Norm alone = *find_norm(view, *last);
    take_sum(view, *last, alone);
    if (alone.addend != kNone) return std::nullopt;  // somebody between the two reads the sum: rather the sum than the codes
  }
  if (!codes && is_norm(node) && norm->addend == kNone) return std::nullopt;  // the operator's own kernel does it
  FusedStep step;
  step.inputs = {norm->x};
  if (norm->addend != kNone) step.inputs.push_back(norm->addend);
  for (const Node* covered : norm->covers) step.covers.push_back(covered->id);
  FusedRowNorm how{*view.constant(norm->gain), norm->bias == kNone ? Tensor() : *view.constant(norm->bias), norm->epsilon, norm->centered, norm->addend != kNone, norm->keeps_sum};
  how.codes = codes;
  how.keeps_rows = keeps_rows;
  const auto keep = [&](ValueId value) {
    step.also.push_back(value);
    return node.outputs.size() + step.also.size() - 1;
  };
  if (keeps_rows) how.rows_output = keep(last->outputs[0]);
  if (norm->keeps_sum) how.sum_output = keep(norm->covers.back()->outputs[0]);
  if (codes) step.named = last->id;
  if (const Device* device = view.device()) step.kernel = device->row_norm(std::move(how));
  else step.kernel = std::make_unique<RowNormKernel>(std::move(how));
  return step;
}

}  // namespace infopt
