#include "lib/runtime/expanded.h"

#include "lib/runtime/run.h"

namespace infopt {
namespace {

class ExpandedKernel : public Kernel {
 public:
  ExpandedKernel(std::shared_ptr<Graph> body, const Plan* parent, SessionOptions options, std::string what)
      : body_(std::move(body)), on_device_(options.device != nullptr), plan_(*body_, std::move(options), parent), what_(std::move(what)) {}

  void run(KernelContext& context) const override {
    if (on_device_) return run_on_device(context);
    Run run(plan_, nullptr, nullptr);
    const auto& inputs = body_->inputs();
    for (size_t i = 0; i < inputs.size(); ++i)
      if (context.has(i)) run.feed(inputs[i], context.datum(i));
    std::vector<Datum> outputs = run.execute();
    for (size_t i = 0; i < outputs.size() && i < context.outputs(); ++i)
      if (context.wanted(i)) context.set_datum(i, std::move(outputs[i]));
  }

  bool on_device() const override { return on_device_; }
  std::string describe() const override { return what_; }

 private:
  void run_on_device(KernelContext& context) const {
    Run run(plan_, nullptr, nullptr, context.device());
    const auto& inputs = body_->inputs();
    for (size_t i = 0; i < inputs.size(); ++i)
      if (context.has(i)) run.feed_device(inputs[i], context.in(i));
    run.execute_steps();
    for (size_t i = 0; i < plan_.fetches().size() && i < context.outputs(); ++i) {
      if (!context.wanted(i)) continue;
      if (Tensor on_device = run.device_fetch(i); on_device.defined()) context.set(i, std::move(on_device));
      else context.set_host(i, run.fetch(i).tensor());
    }
  }

  std::shared_ptr<Graph> body_;
  bool on_device_;
  Plan plan_;
  std::string what_;
};

}  // namespace

std::unique_ptr<Kernel> make_expanded(std::shared_ptr<Graph> body, const Plan* parent, SessionOptions options, std::string what) {
  return std::make_unique<ExpandedKernel>(std::move(body), parent, std::move(options), std::move(what));
}

}  // namespace infopt
