// Attention as the fusion rule finds it: operands read in any order of their axes, masks that broadcast.
#include "lib/runtime/cuda/attention.h"

#include <algorithm>

#include "lib/ops/broadcast.h"
#include "lib/ops/elementwise.h"
#include "lib/runtime/cuda/backend.h"
#include "lib/runtime/fusions/axes.h"

namespace infopt::cuda {

void set_heads(AttentionTask& task, const Shape& sizes, const std::vector<std::pair<HeadMatrix*, std::vector<int64_t>>>& strides) {
  std::vector<size_t> first;  // of the axes that become one, the last
  Shape merged;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 1) continue;
    const bool joins = !merged.empty() && std::all_of(strides.begin(), strides.end(), [&](const auto& s) { return s.second[first.back()] == s.second[i] * sizes[i]; });
    if (joins) {
      merged.back() *= sizes[i];
      first.back() = i;
    } else {
      merged.push_back(sizes[i]);
      first.push_back(i);
    }
  }
  if (merged.size() > static_cast<size_t>(kLeadAxes) || element_count(sizes) >= int64_t{1} << 31) throw Error(ErrorKind::Unsupported, "attention over heads of shape " + to_string(sizes));
  for (size_t d = 0; d < static_cast<size_t>(kLeadAxes); ++d) {
    const bool there = d + merged.size() >= static_cast<size_t>(kLeadAxes);
    const size_t i = there ? d + merged.size() - static_cast<size_t>(kLeadAxes) : 0;
    task.lead[d] = Divider<uint32_t>(there ? merged[i] : 1);
    for (const auto& [matrix, own] : strides) matrix->lead[d] = there ? own[first[i]] : 0;
  }
  task.heads = element_count(sizes);
}

void run_attention(CudaRun& run, DType type, const AttentionTask& task) {
  if (task.heads == 0 || task.queries == 0 || task.value_depth == 0) return;
  if (tensor_cores_take(type, task)) (task.coded() ? attend_codes_by_tensor_cores : attend_by_tensor_cores)(run.stream(), type, task);
  else (task.coded() ? attend_codes_plainly : attend_plainly)(run.stream(), type, task);
}

std::vector<int64_t> read_codes(CudaContext& context, const CodedInput& how, const Tensor& codes, size_t& input, DType type, HeadCodes& to) {
  const Tensor& scale = context.in(input++);
  const DType made = how.options.output != DType::Undefined ? how.options.output : scale.dtype();
  if (made != type) throw Error(ErrorKind::Malformed, "attention of " + std::string(name_of(type)) + " and " + std::string(name_of(made)));
  if (codes.dtype() != DType::U8 && codes.dtype() != DType::I8 && codes.dtype() != DType::F8E4M3FN && codes.dtype() != DType::F8E5M2)
    throw Error(ErrorKind::Unsupported, "attention of codes of " + std::string(name_of(codes.dtype())));
  quantize_grid(codes.shape(), scale.shape(), how.options, Layout::Plain);
  to.type = codes.dtype();
  to.scales = {scale.raw(), scale.dtype()};
  if (how.has_zero) {
    const Tensor& zero = context.in(input++);
    if (zero.size() != scale.size() || zero.dtype() != codes.dtype()) throw Error(ErrorKind::Malformed, "the zero point's shape " + to_string(zero.shape()) + " or type isn't that of the scale or the codes");
    to.zeros = {zero.raw(), zero.dtype()};
  }
  std::vector<int64_t> strides(codes.shape().size());
  if (scale.size() > 1) strides[static_cast<size_t>(codes.rank() == 1 ? 0 : normalize_axis(how.options.axis, codes.rank()))] = 1;
  return strides;
}

namespace {

bool is_known(DType t) { return t == DType::F32 || t == DType::F16 || t == DType::BF16; }

class AttentionKernel : public CudaKernel {
 public:
  explicit AttentionKernel(FusedAttention how) : how_(std::move(how)) {}

  void run_cuda(CudaContext& context) const override {
    const Tensor &q = context.in(0), &k = context.in(1), &v = context.in(2);
    const DType type = q.dtype();
    for (const auto& [t, coded] : {std::pair(&k, how_.k_codes.has_value()), std::pair(&v, how_.v_codes.has_value())})
      if (!coded && t->dtype() != type) throw Error(ErrorKind::Malformed, "attention of " + std::string(name_of(type)) + " and " + std::string(name_of(t->dtype())));
    if (!is_known(type)) throw Error(ErrorKind::Unsupported, "attention of " + std::string(name_of(type)));
    const Axes qa(q, how_.q_perm), ka(k, how_.k_perm), va(v, how_.v_perm);
    if (qa.sizes.size() < 2 || ka.sizes.size() < 2 || va.sizes.size() < 2) throw Error(ErrorKind::Malformed, "attention of vectors");
    if (qa.size(1) != ka.size(2)) throw Error(ErrorKind::Malformed, "shapes " + to_string(qa.sizes) + " and " + to_string(ka.sizes) + " don't fit for a product");
    AttentionTask t;
    t.queries = qa.size(2), t.keys = ka.size(1), t.depth = qa.size(1), t.value_depth = va.size(1);
    t.scale = how_.scale, t.instead = how_.instead, t.keep_if = how_.keep_if, t.keep_last = how_.keep_last, t.nan_is_zero = how_.nan_is_zero;
    Shape lead = broadcast_shape(qa.leading(), ka.leading());
    Tensor mask, keep;
    if (how_.has_mask) mask = context.in(3);
    if (how_.has_keep) keep = context.in(how_.has_mask ? 4 : 3);
    if (how_.has_mask && !is_known(mask.dtype())) throw Error(ErrorKind::Malformed, "attention with a mask of " + std::string(name_of(mask.dtype())));
    if (how_.has_keep && keep.dtype() != DType::Bool) throw Error(ErrorKind::Malformed, "Where's condition is " + std::string(name_of(keep.dtype())));
    const Axes ma = join(mask, t, lead), wa = join(keep, t, lead);
    if (va.size(2) != t.keys) throw Error(ErrorKind::Malformed, "values of " + to_string(va.sizes) + " for " + std::to_string(t.keys) + " keys");
    lead = broadcast_shape(lead, va.leading());
    Shape result = lead;
    result.insert(result.end(), {t.queries, t.value_depth});
    Shape stored = result;
    std::vector<int64_t> order(how_.out_perm.size());
    if (!how_.out_perm.empty()) {
      if (order.size() != result.size()) throw Error(ErrorKind::Malformed, "perm has " + std::to_string(order.size()) + " axes, the tensor's shape is " + to_string(result));
      for (size_t i = 0; i < order.size(); ++i) {
        stored[i] = result[static_cast<size_t>(how_.out_perm[i])];
        order[static_cast<size_t>(how_.out_perm[i])] = static_cast<int64_t>(i);
      }
    }
    Tensor& y = context.out(0, type, stored);
    if (t.keys == 0) return context.stream().fill(y.mutable_raw(), 0, y.bytes());
    const Axes ya(y, order);
    t.q = matrix(q, qa.stride(2), qa.stride(1));
    t.k = matrix(k, ka.stride(1), ka.stride(2));
    t.v = matrix(v, va.stride(2), va.stride(1));
    t.out = matrix(y, ya.stride(2), ya.stride(1));
    if (how_.has_mask) t.mask = matrix(mask, ma.stride(2), ma.stride(1)), t.mask_type = mask.dtype();
    if (how_.has_keep) t.keep = matrix(keep, wa.stride(2), wa.stride(1));
    // An axis that is 1 long has no step: as if it were dense.
    if (t.depth == 1) t.q.column = t.k.column = 1;
    if (t.value_depth == 1) t.v.column = t.out.column = 1;
    const auto along = [&](const Axes& axes) {
      std::vector<int64_t> strides(lead.size());
      for (size_t i = 0; i + 2 < axes.sizes.size(); ++i) strides[lead.size() + 2 - axes.sizes.size() + i] = axes.strides[i];
      return strides;
    };
    size_t input = size_t{3} + how_.has_mask + how_.has_keep;
    const Axes ks = scales_of(context, how_.k_codes, k, ka, how_.k_perm, input, type, t.k_codes), vs = scales_of(context, how_.v_codes, v, va, how_.v_perm, input, type, t.v_codes);
    t.k_codes.at.row = ks.stride(1), t.k_codes.at.column = ks.stride(2);
    t.v_codes.at.row = vs.stride(2), t.v_codes.at.column = vs.stride(1);
    set_heads(t, lead, {{&t.q, along(qa)}, {&t.k, along(ka)}, {&t.v, along(va)}, {&t.mask, along(ma)}, {&t.keep, along(wa)}, {&t.out, along(ya)}, {&t.k_codes.at, along(ks)}, {&t.v_codes.at, along(vs)}});
    run_attention(context.run(), type, t);
  }

  std::string describe() const override { return std::string("attention without a matrix of scores") + (how_.k_codes || how_.v_codes ? ", of coded keys or values" : ""); }

 private:
  /// Where an operand's scales are, by the axes as they are read; without steps where it isn't coded.
  static Axes scales_of(CudaContext& context, const std::optional<CodedInput>& how, const Tensor& codes, Axes axes, const std::vector<int64_t>& perm, size_t& input, DType type, HeadCodes& to) {
    std::vector<int64_t> own(axes.sizes.size());
    if (how) own = read_codes(context, *how, codes, input, type, to);
    for (size_t i = 0; i < own.size(); ++i) axes.strides[i] = axes.sizes[i] == 1 ? 0 : own[perm.empty() ? i : static_cast<size_t>(perm[i])];
    return axes;
  }

  static HeadMatrix matrix(const Tensor& t, int64_t row, int64_t column) { return {.data = t.raw(), .lead = {}, .row = row, .column = column}; }

  /// Broadcasts the scores' axes with those of a mask.
  static Axes join(const Tensor& mask, AttentionTask& t, Shape& lead) {
    Axes axes(mask.defined() ? mask : Tensor(DType::Bool, {1, 1}), {});
    axes.widen(2);
    lead = broadcast_shape(lead, axes.leading());
    const Shape rows = broadcast_shape({t.queries, t.keys}, {axes.size(2), axes.size(1)});
    t.queries = rows[0], t.keys = rows[1];
    return axes;
  }

  FusedAttention how_;
};

}  // namespace

std::unique_ptr<Kernel> make_attention(FusedAttention how) { return std::make_unique<AttentionKernel>(std::move(how)); }

}  // namespace infopt::cuda
