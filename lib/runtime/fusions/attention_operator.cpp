// ONNX's Attention (opset 23 and later) by the kernel that never holds the scores: grouped heads share their keys, causality, windows and lengths
// become bounds of each query's keys, and a past is put before the keys once. 16-bit floats are computed in float32. A device has a kernel of its
// own for the operator; the rule is for what it has beyond that: keys and values given as codes, whose DequantizeLinear is read through.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "lib/base/share.h"
#include "lib/runtime/cpu/attention.h"
#include "lib/runtime/fusions/attention_operands.h"
#include "lib/runtime/fusions/axes.h"
#include "lib/runtime/fusions/coded_input.h"
#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/fusions/value_facts.h"

namespace infopt {
namespace {

[[noreturn]] void malformed(const std::string& message) { throw Error(ErrorKind::Malformed, message); }

struct Heads : AttentionOperand {
  Tensor tensor;
  Heads(const Tensor& t, int64_t head_count, const char* name) : AttentionOperand(t.shape(), head_count, name), tensor(t) {}
  cpu::FloatView view(int64_t b, int64_t head) const { return {tensor.data<float>() + offset(b, head), row_stride, 1}; }
};

void to_float32(Tensor& t) {
  if (t.dtype() == DType::F32) return;
  if (t.dtype() != DType::F16 && t.dtype() != DType::BF16) throw Error(ErrorKind::Unsupported, "attention of " + std::string(name_of(t.dtype())));
  t = cast(t, DType::F32);
}

class AttentionOperatorKernel : public Kernel {
 public:
  explicit AttentionOperatorKernel(AttentionOptions options) : o_(options) {}

  void run(KernelContext& context) const override {
    Heads q(context.in(0), o_.q_heads, "Q"), k(context.in(1), o_.kv_heads, "K"), v(context.in(2), o_.kv_heads, "V");
    check_attention(q, k, v, q.tensor.shape(), k.tensor.shape(), v.tensor.shape());
    if (context.has(4) != context.has(5)) malformed("Attention has one of past_key and past_value");
    const DType dtype = q.tensor.dtype();
    const bool wide = q.tensor.rank() == 4;
    const int64_t past = context.has(4) ? Heads(context.in(4), 0, "past_key").rows : 0;
    k = with_past(context, k, 4, 1);
    v = with_past(context, v, 5, 2);
    if (v.rows != k.rows) malformed("Attention's past_key and past_value differ in length");
    for (Heads* h : {&q, &k, &v}) to_float32(h->tensor);
    cpu::Attention a{.queries = q.rows, .keys = k.rows, .depth = q.depth, .value_depth = v.depth};
    a.scale = o_.scale ? *o_.scale : 1.0f / std::sqrt(static_cast<float>(q.depth));
    a.softcap = o_.softcap;
    a.left = o_.left;
    a.right = o_.causal ? 0 : o_.right;
    a.masked_is_zero = true;
    const Mask mask = mask_of(context, q, a);
    const std::vector<int64_t> lengths = lengths_of(context, q.batch);
    a.bounded = a.left >= 0 || a.right >= 0 || mask.keys < a.keys || !lengths.empty();
    Heads y(Tensor(DType::F32, wide ? Shape{q.batch, q.heads, q.rows, v.depth} : Shape{q.batch, q.rows, q.heads * v.depth}), q.heads, "Y");
    const int64_t group = q.heads / k.heads, joined = q.rows == 1 ? group : 1;  // a group's single queries are rows of one product
    a.queries *= joined;
    a.one_position = joined > 1;
    a.out_row = joined > 1 ? y.head_stride : y.row_stride;
    a.mask_row = a.keep_row = joined > 1 ? mask.head : mask.row;
    std::vector<cpu::AttentionHead> heads;
    for (int64_t b = 0; b < q.batch; ++b)
      for (int64_t h = 0; h < q.heads; h += joined) {
        cpu::AttentionHead head{.q = q.view(b, h), .k = k.view(b, h / group), .v = v.view(b, h / group)};
        if (joined > 1) head.q.row = q.head_stride;
        const int64_t at = b * mask.batch + h * mask.head;
        if (a.has_mask) head.mask = mask.tensor.data<float>() + at;
        if (a.has_keep) head.keep = mask.tensor.data<bool>() + at;
        head.out = y.tensor.mutable_data<float>() + y.offset(b, h);
        head.position = context.has(4) || lengths.empty() ? past : lengths[static_cast<size_t>(b)] - q.rows;
        head.known_keys = lengths.empty() ? mask.keys : std::min(mask.keys, lengths[static_cast<size_t>(b)]);
        heads.push_back(head);
      }
    cpu::run_attention(a, heads);
    context.set(0, cast(y.tensor, dtype));
  }

  std::string describe() const override { return "attention in float32 without a matrix of scores"; }

 private:
  struct Mask {
    Tensor tensor = {};
    int64_t batch = 0, head = 0, row = 0;  ///< strides
    int64_t keys = 0;                      ///< that it has
  };

  /// K or V behind its past, which is output `to` too.
  static Heads with_past(KernelContext& context, const Heads& now, size_t from, size_t to) {
    const bool wanted = context.wanted(to);
    if (!context.has(from) && !wanted) return now;
    if (!context.has(from) && now.tensor.rank() == 4) {
      context.set(to, now.tensor);
      return now;
    }
    const Tensor past = context.has(from) ? context.in(from) : Tensor(now.tensor.dtype(), now.shape_with(0));
    check_past(past, now, now.tensor.dtype());
    const int64_t before = past.dim(2);
    const Shape shape = now.shape_with(before + now.rows);
    Tensor all = wanted ? context.out(to, past.dtype(), shape) : Tensor(past.dtype(), shape);
    const size_t size = element_bytes(past.dtype()), row = size * static_cast<size_t>(now.depth);
    std::byte* out = all.mutable_raw();
    constexpr int64_t kLeastElements = 1 << 14;
    share_work(now.batch * now.heads, std::max<int64_t>(1, kLeastElements / std::max<int64_t>(1, (before + now.rows) * now.depth)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        std::byte* to_row = out + row * static_cast<size_t>(i * (before + now.rows));
        if (before > 0) std::memcpy(to_row, past.raw() + row * static_cast<size_t>(i * before), row * static_cast<size_t>(before));
        to_row += row * static_cast<size_t>(before);
        const std::byte* source = now.tensor.raw() + size * static_cast<size_t>(now.offset(i / now.heads, i % now.heads));
        for (int64_t r = 0; r < now.rows; ++r, to_row += row, source += size * static_cast<size_t>(now.row_stride)) std::memcpy(to_row, source, row);
      }
    });
    return Heads(all, 0, "K");
  }

  /// The mask in the form that the kernel reads; `a` is told which.
  Mask mask_of(KernelContext& context, const Heads& q, cpu::Attention& a) const {
    Mask mask;
    mask.keys = a.keys;
    if (!context.has(3)) return mask;
    Tensor& t = mask.tensor = context.in(3);
    a.has_keep = t.dtype() == DType::Bool;
    a.has_mask = !a.has_keep;
    if (a.has_keep) a.instead = -std::numeric_limits<float>::infinity();
    else t = cast(t, DType::F32);
    const Shape given = t.shape();
    const auto refuse = [&] { malformed("Attention's mask of shape " + to_string(given) + " doesn't fit " + to_string({q.batch, q.heads, q.rows, a.keys})); };
    if (t.rank() < 1 || t.rank() > 4) refuse();
    Axes axes(t, {});
    axes.widen(4);
    const Shape limits{q.batch, q.heads, q.rows};
    for (size_t i = 0; i < 3; ++i)
      if (axes.sizes[i] != 1 && axes.sizes[i] != limits[i]) refuse();
    if (o_.pads_mask) {
      mask.keys = std::min(a.keys, axes.sizes[3]);
    } else if (axes.sizes[3] == 1 && a.keys != 1) {
      Shape full = axes.sizes;
      full[3] = a.keys;
      t = gather_strided(t, full, 0, axes.strides);
      axes = Axes(t, {});
    } else if (axes.sizes[3] != a.keys) {
      refuse();
    }
    mask.batch = axes.strides[0], mask.head = axes.strides[1], mask.row = axes.strides[2];
    return mask;
  }

  /// How many keys of each entry of the batch are known; empty where all are.
  static std::vector<int64_t> lengths_of(KernelContext& context, int64_t batch) {
    if (!context.has(6)) return {};
    const Tensor& t = context.in(6);
    if (t.dtype() != DType::I64 || t.size() != batch) malformed("Attention's nonpad_kv_seqlen has shape " + to_string(t.shape()) + " for a batch of " + std::to_string(batch));
    std::vector<int64_t> lengths = to_vector<int64_t>(t);
    for (int64_t& n : lengths) n = std::clamp(n, -AttentionOptions::kFar, AttentionOptions::kFar);
    return lengths;
  }

  AttentionOptions o_;
};

/// Keys and values as codes: both, or in float32 either.
std::optional<FusedStep> fuse_coded(PlanView& view, const Node& node) {
  const auto used = [](const std::vector<ValueId>& values, size_t i) { return i < values.size() && values[i] != kNone; };
  if (used(node.inputs, 4) || used(node.inputs, 5) || used(node.outputs, 1) || used(node.outputs, 2)) return std::nullopt;
  const auto k = coded_value(view, node.input(1)), v = coded_value(view, node.input(2));
  if (!(k && v) && !((k || v) && has_type(view, node.input(0), DType::F32))) return std::nullopt;
  FusedStep step;
  step.inputs = node.inputs;
  step.inputs.resize(7, kNone);
  CodedAttention how{attention_options(node, view.opset(""), view.graph().value(node.input(0)).type.dtype), {}, {}};
  const auto take = [&](const std::optional<CodedValue>& coded, size_t i, std::optional<CodedInput>& to) {
    if (!coded) return;
    to = coded->how;
    coded->add_inputs(step.inputs);
    if (view.only_for_one(node.inputs[i])) step.covers.push_back(coded->node->id);
    step.inputs[i] = coded->node->input(0);
  };
  take(k, 1, how.k);
  take(v, 2, how.v);
  step.kernel = view.device()->attention_operator(std::move(how));
  return step;
}

}  // namespace

std::optional<FusedStep> fuse_attention_operator(PlanView& view, const Node& node) {
  if (!node.is("Attention")) return std::nullopt;
  try {
    if (view.device()) return fuse_coded(view, node);
    const AttentionOptions options = attention_options(node, view.opset(""), view.graph().value(node.input(0)).type.dtype);
    return FusedStep{.inputs = node.inputs, .kernel = std::make_unique<AttentionOperatorKernel>(options)};
  } catch (const Error& e) {
    view.refuse(node, e.message());
    return std::nullopt;
  }
}

}  // namespace infopt
