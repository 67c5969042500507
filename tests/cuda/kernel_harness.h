// One kernel of the device, called by itself: inputs from the host, outputs back to it.
#pragma once
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/layout.h"
#include "tests/cuda/harness.h"

namespace infopt::test {

class LoneContext : public KernelContext {
 public:
  explicit LoneContext(std::unique_ptr<DeviceRun> run) : run_(std::move(run)) {}
  /// `layout`: how it is to lie; given in plain layout.
  void add(const Tensor& plain, Layout layout = Layout::Plain) {
    host_.push_back(plain);
    inputs_.push_back(run_->to_device(layout == Layout::Plain || plain.rank() < 3 ? plain : convert_layout(plain, Layout::Plain, layout)));
    layouts_.push_back(layout);
  }
  size_t inputs() const override { return inputs_.size(); }
  size_t outputs() const override { return 1; }
  bool has(size_t i) const override { return i < inputs_.size(); }
  const Tensor& in(size_t i) override { return inputs_.at(i); }
  const Tensor& in_any(size_t i, Layout& layout) override {
    layout = layouts_.at(i);
    return inputs_.at(i);
  }
  bool wanted(size_t) const override { return true; }
  Tensor& out(size_t, DType dtype, Shape shape, Layout layout) override {
    layout_ = layout;
    return out_ = run_->make(dtype, std::move(shape));
  }
  Tensor& out_reusing(size_t i, size_t, DType dtype, Shape shape, Layout layout) override { return out(i, dtype, std::move(shape), layout); }
  void set(size_t, Tensor tensor, Layout layout) override { out_ = std::move(tensor), layout_ = layout; }
  DeviceRun* device() override { return run_.get(); }
  const Tensor& host(size_t i) override { return host_.at(i); }
  std::vector<Datum> run_body(size_t, std::vector<Datum>) override { return {}; }
  /// In plain layout.
  Tensor result() {
    const Tensor t = run_->to_host(out_);
    return layout_ == Layout::Plain || t.rank() < 3 ? t : convert_layout(t, layout_, Layout::Plain);
  }

 private:
  std::unique_ptr<DeviceRun> run_;
  std::vector<Tensor> host_, inputs_;
  std::vector<Layout> layouts_;
  Tensor out_;
  Layout layout_ = Layout::Plain;
};

}  // namespace infopt::test
