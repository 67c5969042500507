#include "lib/runtime/fusions/code_sum.h"

#include <utility>

#include "lib/base/share.h"
#include "lib/base/strided.h"
#include "lib/ops/broadcast.h"
#include "lib/runtime/layout.h"

namespace infopt {
namespace {

constexpr int64_t kLeast = 1 << 14;

/// The shape as it lies in memory, outermost first, brought to `rank`.
Shape physical(const Shape& shape, size_t rank, Layout layout) {
  Shape wide(rank - shape.size(), 1);
  wide.insert(wide.end(), shape.begin(), shape.end());
  if (layout == Layout::ChannelsLast && rank >= 3) {
    wide.push_back(wide[1]);
    wide.erase(wide.begin() + 1);
  }
  return wide;
}

/// The operand in `layout`, as bytes; one of a lower rank in plain layout, as the plan then says of the result.
Tensor arrange(const CodeOperand& operand, size_t rank, Layout layout) {
  const bool whole = static_cast<size_t>(operand.tensor.rank()) == rank;
  return operand.tensor.rank() < 3 ? operand.tensor : convert_layout(operand.tensor, operand.layout, whole ? layout : Layout::Plain);
}

/// All elements of `shape` (physical), the operand's repeated.
Tensor spread(const Tensor& t, const Shape& own, const Shape& shape) {
  Tensor out(t.dtype(), shape);
  std::vector<int64_t> from(shape.size()), to(shape.size());
  int64_t step = 1, wide = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    from[i] = own[i] == 1 ? 0 : step;
    to[i] = wide;
    step *= own[i];
    wide *= shape[i];
  }
  copy_strided(1, shape, out.mutable_raw(), to, t.raw(), from);
  return out;
}

}  // namespace

CodePlan plan_codes(const CodeOperand& a, const CodeOperand& b) {
  CodePlan plan{broadcast_shape(a.tensor.shape(), b.tensor.shape()), Layout::Plain};
  const size_t rank = plan.shape.size();
  if (rank < 3) return plan;
  // A lower rank aligns with the last axes of the plain layout: it would have to be reordered.
  const bool whole = static_cast<size_t>(a.tensor.rank()) == rank || a.tensor.size() == 1, whole_b = static_cast<size_t>(b.tensor.rank()) == rank || b.tensor.size() == 1;
  const bool last = (a.layout == Layout::ChannelsLast && a.tensor.shape() == plan.shape) || (b.layout == Layout::ChannelsLast && b.tensor.shape() == plan.shape);
  if (whole && whole_b && last) plan.layout = Layout::ChannelsLast;
  return plan;
}

void combine_codes(const cpu::Int8Binary& how, bool product, const CodePlan& plan, CodeOperand a, CodeOperand b, Tensor& y) {
  const size_t rank = plan.shape.size();
  const Shape shape = physical(plan.shape, rank, plan.layout);
  cpu::Int8Binary rule = how;
  a.tensor = arrange(a, rank, plan.layout);
  b.tensor = arrange(b, rank, plan.layout);
  if (b.tensor.size() > a.tensor.size()) {
    std::swap(a, b);
    std::swap(rule.a_dtype, rule.b_dtype);
    std::swap(rule.a_zero, rule.b_zero);
    if (!product) std::swap(rule.a_ratio, rule.b_ratio);
  }
  const Shape a_shape = physical(a.tensor.shape(), rank, plan.layout), b_shape = physical(b.tensor.shape(), rank, plan.layout);
  if (a_shape != shape) a.tensor = spread(a.tensor, a_shape, shape);
  // b's own places: after `lead` axes that equal the result's come axes of 1, then a block that repeats.
  size_t lead = 0;
  while (lead < rank && b_shape[lead] == shape[lead]) ++lead;
  size_t ones = lead;
  while (ones < rank && b_shape[ones] == 1) ++ones;
  bool regular = true;
  for (size_t i = ones; i < rank; ++i) regular = regular && b_shape[i] == shape[i];
  if (!regular) {
    b.tensor = spread(b.tensor, b_shape, shape);
    lead = ones = rank;
  }
  int64_t outer = 1, block = 1, inner = 1;
  for (size_t i = 0; i < lead; ++i) outer *= shape[i];
  for (size_t i = lead; i < rank; ++i) inner *= shape[i];
  for (size_t i = ones; i < rank; ++i) block *= shape[i];
  if (ones == lead) {  // equal shapes: one long block
    inner = block = outer;
    outer = 1;
  }
  const auto* pa = reinterpret_cast<const uint8_t*>(a.tensor.raw());
  const auto* pb = reinterpret_cast<const uint8_t*>(b.tensor.raw());
  auto* py = reinterpret_cast<uint8_t*>(y.mutable_raw());
  const auto run = product ? cpu::int8_multiply : cpu::int8_add;
  if (outer == 1 && block == inner)
    return share_work(inner, kLeast, [&](int64_t begin, int64_t end) { run(rule, pa + begin, pb + begin, end - begin, py + begin, end - begin); });
  if (inner == 0) return;
  share_work(outer, std::max<int64_t>(1, kLeast / inner), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) run(rule, pa + o * inner, pb + o * block, block, py + o * inner, inner);
  });
}

}  // namespace infopt
