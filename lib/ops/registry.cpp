#include "lib/base/error.h"
#include "lib/ops/op.h"
#include "op_table.h"  // generated

namespace infopt {
namespace {

class FunctionKernel : public Kernel {
 public:
  FunctionKernel(KernelFunction function, ByItem by_item) : function_(std::move(function)), by_item_(by_item) {}
  void run(KernelContext& context) const override { function_(context); }
  ByItem by_item() const override { return by_item_; }

 private:
  KernelFunction function_;
  ByItem by_item_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(KernelFunction function, ByItem by_item) { return std::make_unique<FunctionKernel>(std::move(function), by_item); }

std::vector<Placed> KernelContext::run_body_placed(size_t, std::vector<Placed>) { throw Error(ErrorKind::Defect, "a body on a device that isn't there"); }

const std::vector<OpDef>& all_ops() {
  static const std::vector<OpDef> ops = [] {
    std::vector<OpDef> all;
    for (const auto& family : op_families())
      for (auto& op : family()) all.push_back(std::move(op));
    return all;
  }();
  return ops;
}

const OpDef* find_op(const std::string& domain, const std::string& name, int64_t opset) {
  for (const OpDef& op : all_ops())
    if (op.name == name && op.domain == domain && op.since <= opset && opset <= op.until) return &op;
  return nullptr;
}

}  // namespace infopt
