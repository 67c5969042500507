#include "lib/runtime/expanded.h"

#include "lib/runtime/run.h"

namespace infopt {
namespace {

class ExpandedKernel : public Kernel {
 public:
  ExpandedKernel(std::shared_ptr<Graph> body, const Plan* parent) : body_(std::move(body)), plan_(*body_, {}, parent) {}

  void run(KernelContext& context) const override {
    Run run(plan_, nullptr, nullptr);
    const auto& inputs = body_->inputs();
    for (size_t i = 0; i < inputs.size(); ++i)
      if (context.has(i)) run.feed(inputs[i], context.datum(i));
    std::vector<Datum> outputs = run.execute();
    for (size_t i = 0; i < outputs.size() && i < context.outputs(); ++i)
      if (context.wanted(i)) context.set_datum(i, std::move(outputs[i]));
  }

  std::string describe() const override { return "the operator's body as ONNX defines it"; }

 private:
  std::shared_ptr<Graph> body_;
  Plan plan_;
};

}  // namespace

std::unique_ptr<Kernel> make_expanded(std::shared_ptr<Graph> body, const Plan* parent) { return std::make_unique<ExpandedKernel>(std::move(body), parent); }

}  // namespace infopt
