// MatMul(Q, Kᵀ) → scale → mask → Softmax → MatMul(V) as one step that never holds the scores. Transposes before it become strides, and a
// Transpose behind it the order in which the result is stored. On a device K and V may be codes: a DequantizeLinear before them is read through.
#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/strided.h"
#include "lib/ops/broadcast.h"
#include "lib/runtime/cpu/attention.h"
#include "lib/runtime/fusions/axes.h"
#include "lib/runtime/fusions/coded_input.h"
#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/fusions/value_facts.h"

namespace infopt {
namespace {

/// A value, and the order in which its axes are to be read; empty where that is their own.
struct Side {
  ValueId value = kNone;
  std::vector<int64_t> perm = {};
};

struct Found {
  Side q, k, v;  ///< k as it enters the product: depth × keys
  ValueId mask = kNone, keep = kNone;
  float scale = 1, instead = 0;
  bool keep_if = true, keep_last = true;
  std::vector<int64_t> out_perm = {};
  std::vector<const Node*> covers = {};
  const Node *product = nullptr, *softmax = nullptr;
  bool casts = false;   ///< the scores become float32
  bool narrows = false; ///< the weights become 16-bit floats
  bool nan_is_zero = false;
};

/// The value with Transposes and, where `scale` is given, factors taken off.
Side peel(PlanView& view, ValueId value, Found& f, bool scaled) {
  Side side{value};
  while (!view.constant(side.value)) {
    const Node* node = view.producer(side.value);
    if (!node) break;
    if (node->is("Transpose") && node->find("perm")) {
      const std::vector<int64_t> under = node->ints("perm");
      if (!side.perm.empty() && under.size() != side.perm.size()) break;
      if (std::any_of(under.begin(), under.end(), [&](int64_t p) { return p < 0 || p >= static_cast<int64_t>(under.size()); })) break;
      if (side.perm.empty()) side.perm = under;
      else
        for (int64_t& p : side.perm) p = under[static_cast<size_t>(p)];
      if (view.only_for_one(side.value)) f.covers.push_back(node);
      side.value = node->input(0);
      continue;
    }
    if (!scaled || !view.only_for_one(side.value) || (!is_binary(node, "Mul") && !is_binary(node, "Div"))) break;
    const bool right = scalar_constant(view, node->input(1)).has_value();
    const std::optional<float> by = scalar_constant(view, node->input(right ? 1 : 0));
    if (!by || (!right && node->is("Div"))) break;
    f.scale = node->is("Mul") ? f.scale * *by : f.scale / *by;
    f.covers.push_back(node);
    side.value = node->input(right ? 0 : 1);
  }
  return side;
}

bool find_scores(PlanView& view, ValueId value, Found& f, bool scaled);

/// One of the node's inputs `i` leads to the product of Q and Kᵀ; f is as before where none does.
std::optional<size_t> find_operand(PlanView& view, const Node& node, std::initializer_list<size_t> inputs, Found& f, bool scaled) {
  for (size_t i : inputs) {
    Found trial = f;
    trial.covers.push_back(&node);
    if (!find_scores(view, node.input(i), trial, scaled)) continue;
    f = std::move(trial);
    return i;
  }
  return std::nullopt;
}

/// Reads backwards from the softmax's input: a mask added and one chosen by Where, each at most once, then factors, then the product.
bool find_scores(PlanView& view, ValueId value, Found& f, bool scaled) {
  const Node* node = view.only_for_one(value);
  if (!node || view.constant(value)) return false;
  if (node->is("MatMul")) {
    f.product = node;
    return true;
  }
  if (node->is("Cast") && node->i("to", 0) == static_cast<int64_t>(DType::F32)) {
    f.casts = true;
    f.covers.push_back(node);
    return find_scores(view, node->input(0), f, scaled);
  }
  if (is_binary(node, "Mul") || is_binary(node, "Div")) {
    for (size_t i : {0u, 1u}) {
      const std::optional<float> by = scalar_constant(view, node->input(1 - i));
      if (!by || (i == 1 && node->is("Div"))) continue;
      f.scale = node->is("Mul") ? f.scale * *by : f.scale / *by;
      f.covers.push_back(node);
      return find_scores(view, node->input(i), f, true);
    }
    return false;
  }
  if (scaled) return false;
  if (is_binary(node, "Add") && f.mask == kNone) {
    const auto i = find_operand(view, *node, {0, 1}, f, scaled);
    if (!i || f.mask != kNone) return false;
    f.mask = other_input(*node, *i);
    f.keep_last = false;
    return true;
  }
  if (node->is("Where") && f.keep == kNone) {
    const auto i = find_operand(view, *node, {1, 2}, f, scaled);
    if (!i || f.keep != kNone) return false;
    const std::optional<float> instead = scalar_constant(view, node->input(3 - *i));
    if (!instead) return false;
    f.keep = node->input(0);
    f.keep_if = *i == 1;
    f.instead = *instead;
    f.keep_last = true;
    return true;
  }
  return false;
}

/// float32 operands, or on a device 16-bit ones, whose scores may be float32 between the products.
bool computed_in_float32(PlanView& view, const Found& f) {
  const auto all = [&](DType t) { return has_type(view, f.q.value, t) && has_type(view, f.k.value, t) && has_type(view, f.v.value, t); };
  const auto some = [&](DType t) { return has_type(view, f.q.value, t) || has_type(view, f.k.value, t) || (!f.casts && has_type(view, f.v.value, t)); };
  if (some(DType::F32)) return !f.narrows;
  for (const DType t : {DType::F16, DType::BF16})
    if (view.device() && some(t)) return (!f.casts && !f.narrows) || all(t);
  return false;
}

/// Where(IsNaN(p), 0, p), as exporters guard rows without a key: p's node, with the guard's among what is covered; null where it's something else.
const Node* unguarded(PlanView& view, const Node& where, Found& f) {
  const Node* test = view.only_for_one(where.input(0));
  const ValueId p = where.input(2);
  const Node* made = view.producer(p);
  if (!test || !test->is("IsNaN") || test->input(0) != p || !made || !view.hidden(p) || scalar_constant(view, where.input(1)) != 0.0f) return nullptr;
  const auto& uses = view.graph().value(p).uses;
  if (!std::all_of(uses.begin(), uses.end(), [&](const Use& u) { return u.node == test->id || u.node == where.id; })) return nullptr;
  f.nan_is_zero = true;
  f.covers.insert(f.covers.end(), {&where, test});
  return made;
}

std::optional<Found> find_pattern(PlanView& view, const Node& node) {
  Found f;
  const Node* at = &node;
  if (at->is("Transpose") && at->find("perm")) {
    f.out_perm = at->ints("perm");
    const int64_t rank = static_cast<int64_t>(f.out_perm.size());
    std::vector<bool> seen(f.out_perm.size());
    for (int64_t p : f.out_perm) {
      if (p < 0 || p >= rank || seen[static_cast<size_t>(p)]) return std::nullopt;
      seen[static_cast<size_t>(p)] = true;
    }
    if (rank < 2 || f.out_perm.back() != rank - 1) return std::nullopt;
    at = view.only_for_one(at->input(0));
  }
  if (!at || !at->is("MatMul")) return std::nullopt;
  if (at != &node) f.covers.push_back(at);
  const Node* softmax = view.only_for_one(at->input(0));
  const auto to_type = [&](DType t) { return softmax && softmax->is("Cast") && softmax->i("to", 0) == static_cast<int64_t>(t); };
  const bool narrows = view.device() && (to_type(DType::F16) || to_type(DType::BF16));
  if (narrows || to_type(DType::F32)) {
    (narrows ? f.narrows : f.casts) = true;
    f.covers.push_back(softmax);
    softmax = view.only_for_one(softmax->input(0));
  }
  if (softmax && softmax->is("Where")) softmax = unguarded(view, *softmax, f);
  if (!softmax || !softmax->is("Softmax")) return std::nullopt;
  f.softmax = softmax;
  f.covers.push_back(softmax);
  if (!find_scores(view, softmax->input(0), f, false)) return std::nullopt;
  f.covers.push_back(f.product);
  f.q = peel(view, f.product->input(0), f, true);
  f.k = peel(view, f.product->input(1), f, true);
  f.v = peel(view, at->input(1), f, false);
  int64_t rank = 2;
  for (const Side* side : {&f.q, &f.k, &f.v}) {
    const int64_t own = side->perm.empty() ? rank_of(view, side->value) : static_cast<int64_t>(side->perm.size());
    if (own < 2) return std::nullopt;
    if (side != &f.v) rank = std::max(rank, own);
  }
  if (const int64_t axis = softmax->i("axis", view.opset("") < 13 ? 1 : -1); axis != -1) {
    for (ValueId v : {f.mask, f.keep}) {
      const int64_t own = v == kNone ? 0 : rank_of(view, v);
      if (own < 0) return std::nullopt;
      rank = std::max(rank, own);
    }
    if (axis != rank - 1) return std::nullopt;
  }
  if (!computed_in_float32(view, f)) return std::nullopt;
  return f;
}

class AttentionKernel : public Kernel {
 public:
  explicit AttentionKernel(const Found& f)
      : q_(f.q.perm), k_(f.k.perm), v_(f.v.perm), out_(f.out_perm), scale_(f.scale), instead_(f.instead), has_mask_(f.mask != kNone), has_keep_(f.keep != kNone), keep_if_(f.keep_if),
        keep_last_(f.keep_last), nan_is_zero_(f.nan_is_zero) {}

  /// Inputs: q, k, v, the mask if there is one, what Where keeps if there is one.
  void run(KernelContext& context) const override {
    const Tensor& q = floats(context, 0);
    const Tensor& k = floats(context, 1);
    const Tensor& v = floats(context, 2);
    Axes qa(q, q_), ka(k, k_), va(v, v_);
    if (qa.sizes.size() < 2 || ka.sizes.size() < 2 || va.sizes.size() < 2) throw Error(ErrorKind::Malformed, "attention of vectors");
    const auto refuse = [&](const Axes& a, const Axes& b) -> Error { return Error(ErrorKind::Malformed, "shapes " + to_string(a.sizes) + " and " + to_string(b.sizes) + " don't fit for a product"); };
    if (qa.size(1) != ka.size(2)) throw refuse(qa, ka);
    cpu::Attention a{.queries = qa.size(2), .keys = ka.size(1), .depth = qa.size(1), .value_depth = va.size(1), .scale = scale_, .has_mask = has_mask_, .has_keep = has_keep_,
                     .keep_if = keep_if_, .instead = instead_, .keep_last = keep_last_, .nan_is_zero = nan_is_zero_};
    Shape lead = broadcast_shape(qa.leading(), ka.leading());
    Tensor mask, keep;
    if (has_mask_) mask = floats(context, 3);
    if (has_keep_) keep = context.in(has_mask_ ? 4 : 3);
    if (has_keep_ && keep.dtype() != DType::Bool) throw Error(ErrorKind::Malformed, "Where's condition is " + std::string(name_of(keep.dtype())));
    Axes ma = join(mask, a, lead), wa = join(keep, a, lead);
    if (va.size(2) != a.keys) throw Error(ErrorKind::Malformed, "values of " + to_string(va.sizes) + " for " + std::to_string(a.keys) + " keys");
    lead = broadcast_shape(lead, va.leading());
    a.mask_row = ma.stride(2), a.keep_row = wa.stride(2);
    Shape result = lead;
    result.insert(result.end(), {a.queries, a.value_depth});
    Shape stored = result;
    if (!out_.empty()) {
      if (out_.size() != result.size()) throw Error(ErrorKind::Malformed, "perm has " + std::to_string(out_.size()) + " axes, the tensor's shape is " + to_string(result));
      for (size_t i = 0; i < out_.size(); ++i) stored[i] = result[static_cast<size_t>(out_[i])];
    }
    Tensor& y = context.out(0, DType::F32, stored);
    Axes ya(y, inverse(out_));
    a.out_row = ya.stride(2);
    std::vector<cpu::AttentionHead> heads(static_cast<size_t>(element_count(lead)));
    for (size_t i = 0; i < heads.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      cpu::AttentionHead& h = heads[i];
      h.q = {q.data<float>() + qa.offset(at, lead), qa.stride(2), step(qa, 1)};
      h.k = {k.data<float>() + ka.offset(at, lead), ka.stride(1), step(ka, 2)};
      h.v = {v.data<float>() + va.offset(at, lead), va.stride(2), step(va, 1)};
      if (has_mask_) h.mask = mask.data<float>() + ma.offset(at, lead);
      if (has_keep_) h.keep = keep.data<bool>() + wa.offset(at, lead);
      h.out = y.mutable_data<float>() + ya.offset(at, lead);
    }
    cpu::run_attention(a, heads);
  }

  std::string describe() const override { return "float32 attention without a matrix of scores"; }

 private:
  static const Tensor& floats(KernelContext& context, size_t i) {
    const Tensor& t = context.in(i);
    if (t.dtype() != DType::F32) throw Error(ErrorKind::Malformed, "attention of float32 and " + std::string(name_of(t.dtype())));
    return t;
  }
  /// The step along an axis that, being 1 long, has none: as if it were dense.
  static int64_t step(const Axes& axes, size_t from_end) { return axes.size(from_end) == 1 ? 1 : axes.stride(from_end); }

  static std::vector<int64_t> inverse(const std::vector<int64_t>& perm) {
    std::vector<int64_t> out(perm.size());
    for (size_t i = 0; i < perm.size(); ++i) out[static_cast<size_t>(perm[i])] = static_cast<int64_t>(i);
    return out;
  }

  /// Broadcasts the scores' axes with those of a mask, which then has all keys in its rows.
  static Axes join(Tensor& mask, cpu::Attention& a, Shape& lead) {
    if (!mask.defined()) mask = Tensor::zeros(DType::Bool, {1, 1});
    Axes axes(mask, {});
    axes.widen(2);
    lead = broadcast_shape(lead, axes.leading());
    const Shape rows = broadcast_shape({a.queries, a.keys}, {axes.size(2), axes.size(1)});
    a.queries = rows[0], a.keys = rows[1];
    if (axes.size(1) == a.keys) return axes;
    Shape full = axes.sizes, strides = axes.strides;
    full.back() = a.keys;
    mask = gather_strided(mask, full, 0, strides);
    return Axes(mask, {});
  }

  std::vector<int64_t> q_, k_, v_, out_;
  float scale_, instead_;
  bool has_mask_, has_keep_, keep_if_, keep_last_, nan_is_zero_;
};

/// The codes that the side is dequantized from; Transposes of the codes themselves become strides, too.
std::optional<CodedValue> read_through(PlanView& view, Side& side, Found& f) {
  auto coded = coded_value(view, side.value);
  if (!coded) return std::nullopt;
  if (view.only_for_one(side.value)) f.covers.push_back(coded->node);
  side.value = coded->node->input(0);
  Found trial = f;
  Side codes = peel(view, side.value, trial, false);
  if (codes.perm.empty() || (!side.perm.empty() && side.perm.size() != codes.perm.size())) return coded;
  f.covers = std::move(trial.covers);
  const auto rank = static_cast<int64_t>(codes.perm.size());
  int64_t& axis = coded->how.options.axis;
  axis += axis < 0 ? rank : 0;
  if (axis >= 0 && axis < rank) axis = codes.perm[static_cast<size_t>(axis)];
  if (side.perm.empty()) side.perm = codes.perm;
  else
    for (int64_t& p : side.perm) p = codes.perm[static_cast<size_t>(p)];
  side.value = codes.value;
  return coded;
}

/// Keys and values as codes: both, or in float32 either.
void find_codes(PlanView& view, Found& f, std::optional<CodedValue>& k, std::optional<CodedValue>& v) {
  if (!view.device()) return;
  const bool either = has_type(view, f.q.value, DType::F32), both = coded_value(view, f.k.value) && coded_value(view, f.v.value);
  if (!either && !both) return;
  k = read_through(view, f.k, f);
  v = read_through(view, f.v, f);
}

}  // namespace

std::optional<FusedStep> fuse_attention(PlanView& view, const Node& node) {
  std::optional<Found> f = find_pattern(view, node);
  if (!f) return std::nullopt;
  std::optional<CodedValue> k_codes, v_codes;
  find_codes(view, *f, k_codes, v_codes);
  FusedStep step;
  step.inputs = {f->q.value, f->k.value, f->v.value};
  if (f->mask != kNone) step.inputs.push_back(f->mask);
  if (f->keep != kNone) step.inputs.push_back(f->keep);
  for (const auto& coded : {k_codes, v_codes})
    if (coded) coded->add_inputs(step.inputs);
  for (const Node* covered : f->covers) step.covers.push_back(covered->id);
  step.named = f->softmax->id;
  if (const Device* device = view.device()) {
    FusedAttention how{f->q.perm, f->k.perm, f->v.perm, f->out_perm, f->scale, f->instead, f->mask != kNone, f->keep != kNone, f->keep_if, f->keep_last, f->nan_is_zero};
    if (k_codes) how.k_codes = k_codes->how;
    if (v_codes) how.v_codes = v_codes->how;
    step.kernel = device->attention(std::move(how));
    return step;
  }
  step.kernel = std::make_unique<AttentionKernel>(*f);
  return step;
}

}  // namespace infopt
