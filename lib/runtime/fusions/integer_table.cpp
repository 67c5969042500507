// Any function of one tensor of codes between DequantizeLinear and QuantizeLinear: 256 answers, looked up.
#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/runtime/cpu/int8_elementwise.h"
#include "lib/runtime/fusions/integer_tail.h"
#include "lib/runtime/fusions/rules.h"

namespace infopt {
namespace {

class TableKernel : public Kernel {
 public:
  explicit TableKernel(CodeTable table) : table_(std::move(table)) {}
  void run(KernelContext& context) const override {
    Layout layout;
    const Tensor& x = context.in_any(0, layout);
    if (x.dtype() != table_.from.dtype) throw Error(ErrorKind::Malformed, "codes of " + std::string(name_of(x.dtype())) + " with a zero point of " + std::string(name_of(table_.from.dtype)));
    if (x.shape().size() < table_.rank) return run_wider(context);
    const auto* from = reinterpret_cast<const uint8_t*>(x.raw());
    Tensor& y = context.out_reusing(0, 0, table_.to.dtype, x.shape(), layout);
    auto* to = reinterpret_cast<uint8_t*>(y.mutable_raw());
    share_work(y.size(), 1 << 16, [&](int64_t begin, int64_t end) { cpu::int8_lookup(from + begin, to + begin, end - begin, table_.entries.data()); });
  }
  ByItem by_item() const override { return table_.rank > 3 ? ByItem::No : ByItem::First; }  // of a higher rank than x, it gives x another axis
  std::string describe() const override { return "table of 256 codes"; }

 private:
  /// A constant in the table has more axes than x.
  void run_wider(KernelContext& context) const {
    const Tensor& x = context.in(0);
    Shape shape(table_.rank - x.shape().size(), 1);
    shape.insert(shape.end(), x.shape().begin(), x.shape().end());
    Tensor& y = context.out(0, table_.to.dtype, shape);
    cpu::int8_lookup(reinterpret_cast<const uint8_t*>(x.raw()), reinterpret_cast<uint8_t*>(y.mutable_raw()), x.size(), table_.entries.data());
  }

  CodeTable table_;
};

}  // namespace

std::optional<FusedStep> fuse_integer_table(PlanView& view, const Node& node) {
  auto table = code_table(view, node);
  if (!table) return std::nullopt;
  FusedStep step;
  step.inputs = {table->from.value};
  step.covers = table->covers;
  if (const Device* device = view.device()) step.kernel = device->integer_table({table->from.step(), table->to.step(), table->entries, table->rank});
  else step.kernel = std::make_unique<TableKernel>(std::move(*table));
  return step;
}

}  // namespace infopt
