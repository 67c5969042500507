// ONNX's Attention (opset 23 and later) without a matrix of scores: grouped heads share their keys, causality, windows and lengths become bounds
// of each query's keys, and a past is put before the keys once.
#include <cmath>
#include <limits>

#include "lib/base/error.h"
#include "lib/base/strided.h"
#include "lib/runtime/cuda/attention.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/cuda/moves.h"
#include "lib/runtime/fusions/attention_operands.h"
#include "lib/runtime/fusions/axes.h"

namespace infopt::cuda {
namespace {

[[noreturn]] void malformed(const std::string& message) { throw Error(ErrorKind::Malformed, message); }
bool is_known(DType t) { return t == DType::F32 || t == DType::F16 || t == DType::BF16; }

struct Operand : AttentionOperand {
  Tensor tensor;
  Operand(const Tensor& t, int64_t head_count, const char* name) : AttentionOperand(t.shape(), head_count, name), tensor(t) {}
  /// Strides along batch, key heads and the queries' heads of each, for `group` heads that share one of these.
  std::vector<int64_t> strides(int64_t group, bool shared) const { return {batch_stride, shared ? head_stride : head_stride * group, shared ? 0 : head_stride}; }
};

/// K or V behind its past, which is output `to` too.
Operand with_past(CudaContext& context, const Operand& now, size_t from, size_t to) {
  const bool wanted = context.wanted(to);
  if (!context.has(from) && !wanted) return now;
  if (!context.has(from) && now.tensor.rank() == 4) {
    context.set(to, now.tensor);
    return now;
  }
  const DType type = now.tensor.dtype();
  Tensor past;
  if (context.has(from)) check_past(past = context.in(from), now, type);
  const int64_t before = past.defined() ? past.dim(2) : 0, rows = before + now.rows;
  const Shape shape = now.shape_with(rows), strides = row_major_strides(shape);
  Tensor all = wanted ? context.out(to, type, shape) : context.scratch(type, shape);
  const size_t bytes = element_bytes(type);
  if (past.size() > 0) copy_box(context.stream(), bytes, past.shape(), all.mutable_raw(), strides, past.raw(), row_major_strides(past.shape()));
  const Shape own{now.batch_stride, now.head_stride, now.row_stride, 1};
  if (now.tensor.size() > 0) copy_box(context.stream(), bytes, now.shape_with(now.rows), all.mutable_raw() + bytes * static_cast<size_t>(before * now.depth), strides, now.tensor.raw(), own);
  return Operand(all, 0, "K");
}

class AttentionOperatorKernel : public CudaKernel {
 public:
  explicit AttentionOperatorKernel(CodedAttention how) : how_(std::move(how)), o_(how_.options) {}

  void run_cuda(CudaContext& context) const override {
    const Operand q(context.in(0), o_.q_heads, "Q");
    Operand k(context.in(1), o_.kv_heads, "K"), v(context.in(2), o_.kv_heads, "V");
    const DType type = q.tensor.dtype();
    if (!is_known(type)) throw Error(ErrorKind::Unsupported, "attention of " + std::string(name_of(type)));
    for (const auto& [t, coded] : {std::pair(&k, how_.k.has_value()), std::pair(&v, how_.v.has_value())})
      if (!coded && t->tensor.dtype() != type) malformed("Attention of " + std::string(name_of(type)) + " and " + std::string(name_of(t->tensor.dtype())));
    check_attention(q, k, v, q.tensor.shape(), k.tensor.shape(), v.tensor.shape());
    if (context.has(4) != context.has(5)) malformed("Attention has one of past_key and past_value");
    const int64_t past = context.has(4) ? AttentionOperand(context.in(4).shape(), 0, "past_key").rows : 0;
    if (!how_.k) k = with_past(context, k, 4, 1);
    if (!how_.v) v = with_past(context, v, 5, 2);
    if (v.rows != k.rows) malformed("Attention's past_key and past_value differ in length");
    AttentionTask t;
    t.queries = q.rows, t.keys = k.rows, t.depth = q.depth, t.value_depth = v.depth;
    t.scale = o_.scale ? *o_.scale : 1.0f / std::sqrt(static_cast<float>(q.depth));
    t.softcap = o_.softcap;
    t.left = o_.left;
    t.right = o_.causal ? 0 : o_.right;
    t.masked_is_zero = true;
    const Mask mask = mask_of(context, q, t);
    read_lengths(context, q, t);
    t.position = past, t.queries_behind = q.rows;
    t.position_from_length = t.lengths.data && !context.has(4);
    t.known_keys = mask.keys;
    t.bounded = t.left >= 0 || t.right >= 0 || mask.keys < t.keys || t.lengths.data;
    Operand y(context.out(0, type, q.tensor.rank() == 4 ? Shape{q.batch, q.heads, q.rows, v.depth} : Shape{q.batch, q.rows, q.heads * v.depth}), q.heads, "Y");
    if (t.keys == 0) return context.stream().fill(y.tensor.mutable_raw(), 0, y.tensor.bytes());
    const auto matrix = [](const Operand& o, int64_t row) { return HeadMatrix{.data = o.tensor.raw(), .lead = {}, .row = row, .column = 1}; };
    const int64_t group = q.heads / k.heads;
    const bool joins = q.rows == 1 && group > 1;  // a group's single queries are rows of one product
    t.q = matrix(q, joins ? q.head_stride : q.row_stride), t.k = matrix(k, k.row_stride), t.v = matrix(v, v.row_stride), t.out = matrix(y, joins ? y.head_stride : y.row_stride);
    t.mask.row = t.keep.row = joins ? mask.head : mask.row;
    std::vector<int64_t> of_mask{mask.batch, mask.head * group, mask.head};
    Shape sizes{q.batch, k.heads, group};
    if (joins) {
      t.queries = group, t.one_position = true;
      sizes[2] = 1;
    }
    size_t input = 7;
    const auto ks = scales_of(context, how_.k, k, input, type, t.k_codes), vs = scales_of(context, how_.v, v, input, type, t.v_codes);
    set_heads(t, sizes, {{&t.q, q.strides(group, false)}, {&t.k, k.strides(group, true)}, {&t.v, v.strides(group, true)}, {&t.mask, of_mask}, {&t.keep, of_mask}, {&t.out, y.strides(group, false)}, {&t.lengths, {1, 0, 0}},
                         {&t.k_codes.at, ks}, {&t.v_codes.at, vs}});
    run_attention(context.run(), type, t);
  }

  std::string describe() const override { return std::string("attention without a matrix of scores") + (how_.k || how_.v ? ", of coded keys or values" : ""); }

 private:
  /// The strides of an operand's scales along batch, key heads and a group's heads; none where it isn't coded.
  static std::vector<int64_t> scales_of(CudaContext& context, const std::optional<CodedInput>& how, const Operand& codes, size_t& input, DType type, HeadCodes& to) {
    if (!how) return {0, 0, 0};
    const std::vector<int64_t> own = read_codes(context, *how, codes.tensor, input, type, to);
    if (own.size() == 4) {
      to.at.row = own[2], to.at.column = own[3];
      return {own[0], own[1], 0};
    }
    to.at.row = own[1], to.at.column = own[2];
    return {own[0], own[2] * codes.depth, 0};
  }

  struct Mask {
    int64_t batch = 0, head = 0, row = 0;  ///< strides
    int64_t keys = 0;                      ///< that it has
  };

  /// Puts the mask into the task, but for its rows and heads.
  Mask mask_of(CudaContext& context, const Operand& q, AttentionTask& t) const {
    Mask mask;
    mask.keys = t.keys;
    if (!context.has(3)) return mask;
    const Tensor& given = context.in(3);
    const auto refuse = [&] { malformed("Attention's mask of shape " + to_string(given.shape()) + " doesn't fit " + to_string({q.batch, q.heads, q.rows, t.keys})); };
    if (given.rank() < 1 || given.rank() > 4) refuse();
    if (given.dtype() != DType::Bool && !is_known(given.dtype())) throw Error(ErrorKind::Unsupported, "attention with a mask of " + std::string(name_of(given.dtype())));
    Axes axes(given, {});
    axes.widen(4);
    const Shape limits{q.batch, q.heads, q.rows};
    for (size_t i = 0; i < 3; ++i)
      if (axes.sizes[i] != 1 && axes.sizes[i] != limits[i]) refuse();
    if (o_.pads_mask) mask.keys = std::min(t.keys, axes.sizes[3]);
    else if (axes.sizes[3] != 1 && axes.sizes[3] != t.keys) refuse();
    mask.batch = axes.strides[0], mask.head = axes.strides[1], mask.row = axes.strides[2];
    HeadMatrix& to = given.dtype() == DType::Bool ? t.keep : t.mask;
    to.data = given.raw();
    to.column = axes.strides[3];
    if (given.dtype() == DType::Bool) t.instead = -std::numeric_limits<float>::infinity();
    else t.mask_type = given.dtype();
    return mask;
  }

  static void read_lengths(CudaContext& context, const Operand& q, AttentionTask& t) {
    if (!context.has(6)) return;
    const Tensor& given = context.in(6);
    if (given.dtype() != DType::I64 || given.size() != q.batch) malformed("Attention's nonpad_kv_seqlen has shape " + to_string(given.shape()) + " for a batch of " + std::to_string(q.batch));
    if (given.size() > 0) t.lengths.data = given.raw();
  }

  CodedAttention how_;
  AttentionOptions o_;
};

std::unique_ptr<Kernel> make(const KernelSpec& spec) {
  need_type(spec, 0, {DType::F32, DType::F16, DType::BF16});
  if (spec.node.inputs.size() > 3 && spec.node.inputs[3] != kNone) need_type(spec, 3, {DType::Bool, DType::F32, DType::F16, DType::BF16});
  return std::make_unique<AttentionOperatorKernel>(CodedAttention{attention_options(spec.node, spec.opset, declared_type(spec, 0)), {}, {}});
}

}  // namespace

std::unique_ptr<Kernel> make_coded_attention(CodedAttention how) { return std::make_unique<AttentionOperatorKernel>(std::move(how)); }

std::vector<CudaOp> cuda_attention() { return {{.name = "Attention", .since = 23, .make = make}}; }

}  // namespace infopt::cuda
