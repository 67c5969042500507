#include "lib/ops/op.h"
#include "op_table.h"  // generated

namespace infopt {
namespace {

class FunctionKernel : public Kernel {
 public:
  explicit FunctionKernel(KernelFunction function) : function_(std::move(function)) {}
  void run(KernelContext& context) const override { function_(context); }

 private:
  KernelFunction function_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(KernelFunction function) { return std::make_unique<FunctionKernel>(std::move(function)); }

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
