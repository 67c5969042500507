// What a CUDA kernel of a node is made from and sees while it runs.
#pragma once
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lib/ops/op.h"
#include "lib/runtime/cuda/runtime.h"
#include "lib/runtime/cuda/staging.h"
#include "lib/runtime/cuda/summaries.h"
#include "lib/runtime/device.h"

namespace infopt::cuda {

class Libraries;

/// Memory that one stream uses: what is given back is used again by work that comes later in that stream.
class Pool;

/// What a kernel says of elements that it can't work with. It writes this into the host's memory, which is looked at once the stream has been
/// waited for.
enum class Complaint : uint32_t { None, Index };

/// A stream with its memory and library handles; one run's at a time.
struct Workspace {
  Workspace(std::shared_ptr<Libraries> libraries);
  ~Workspace();
  Stream stream;
  std::shared_ptr<Pool> pool;
  std::shared_ptr<Libraries> libraries;
  std::shared_ptr<Complaint> complaint;
  Staging staging;
};

class CudaRun : public DeviceRun {
 public:
  /// `give_back` takes the workspace when the run ends.
  CudaRun(std::unique_ptr<Workspace> workspace, std::function<void(std::unique_ptr<Workspace>)> give_back)
      : workspace_(std::move(workspace)), give_back_(std::move(give_back)), complaint_(workspace_->complaint) {}
  ~CudaRun() override;
  Tensor make(DType dtype, Shape shape) override;
  Tensor to_device(const Tensor& host) override;
  Tensor to_host(const Tensor& device) override;
  Tensor convert_layout(const Tensor& device, Layout from, Layout to) override;
  void wait() override;
  void copy_in(const Tensor& host, Tensor& device) override;
  void begin_capture() override;
  std::shared_ptr<DeviceGraph> end_capture() override;
  void abandon_capture() override;
  void replay(DeviceGraph& graph, float* milliseconds) override;
  bool summarize(const Tensor& device, Layout layout, const SummaryRequest& request) override { return summaries_.ask(*this, device, layout, request); }
  std::vector<TensorSummary> summaries() override;
  /// Where kernels put what they find wrong: the device writes there, nobody reads it before wait().
  Complaint* complaint() { return complaint_.get(); }
  Stream& stream() { return workspace_->stream; }
  Libraries& libraries() { return *workspace_->libraries; }

 private:
  static Tensor make_in(Pool& pool, DType dtype, Shape shape);
  Pool& pool() { return capture_pool_ ? *capture_pool_ : *workspace_->pool; }

  std::unique_ptr<Workspace> workspace_;
  std::shared_ptr<Pool> capture_pool_;
  std::vector<Tensor> captured_constants_;  ///< what was copied to the device for the recording, once
  std::function<void(std::unique_ptr<Workspace>)> give_back_;
  std::shared_ptr<Complaint> complaint_;  ///< of what is given to the stream now
  std::shared_ptr<Complaint> replayed_;   ///< of the graph replayed last
  Summaries summaries_;                   ///< asked for since the run, or the recording, began
  std::shared_ptr<const Summaries> replayed_summaries_;
};

/// A node's inputs and outputs, in the device's memory unless said otherwise. As KernelContext, and what kernels need besides.
class CudaContext {
 public:
  explicit CudaContext(KernelContext& context) : context_(context), run_(static_cast<CudaRun&>(*context.device())) {}
  size_t inputs() const { return context_.inputs(); }
  bool has(size_t i) const { return context_.has(i); }
  bool wanted(size_t i) const { return context_.wanted(i); }
  const Tensor& in(size_t i) { return context_.in(i); }
  const Tensor& in_any(size_t i, Layout& layout) { return context_.in_any(i, layout); }
  /// A small input in the host's memory: shapes, axes, scales. Waits where it was made on the device.
  const Tensor& host(size_t i) { return context_.host(i); }
  Tensor& out(size_t i, DType dtype, Shape shape, Layout layout = Layout::Plain) { return context_.out(i, dtype, std::move(shape), layout); }
  void set(size_t i, Tensor tensor, Layout layout = Layout::Plain) { context_.set(i, std::move(tensor), layout); }
  void set_host(size_t i, Tensor tensor) { context_.set_host(i, std::move(tensor)); }
  size_t outputs() const { return context_.outputs(); }
  /// Input i where it lies, and output i likewise.
  Placed placed(size_t i) { return context_.placed(i); }
  void set_placed(size_t i, Placed value) {
    if (value.device.defined()) context_.set(i, std::move(value.device));
    if (value.host.is_tensor()) context_.set_host(i, value.host.tensor());
    else if (value.host.defined()) context_.set_datum(i, std::move(value.host));
  }
  std::vector<Placed> run_body(size_t body, std::vector<Placed> inputs) { return context_.run_body_placed(body, std::move(inputs)); }
  /// Memory for the length of the kernel.
  Tensor scratch(DType dtype, Shape shape) { return run_.make(dtype, std::move(shape)); }
  CudaRun& run() { return run_; }
  /// For what the CPU's kernels share: collect_operands and the like. Its tensors are the device's all the same.
  KernelContext& base() { return context_; }
  Stream& stream() { return run_.stream(); }
  Libraries& libraries() { return run_.libraries(); }

 private:
  KernelContext& context_;
  CudaRun& run_;
};

using CudaFunction = std::function<void(CudaContext&)>;
/// A kernel on the device; `description` is for `inspect --plan`.
std::unique_ptr<Kernel> make_cuda_kernel(CudaFunction function, std::string description);

/// One that keeps something: packed weights, plans.
class CudaKernel : public Kernel {
 public:
  bool on_device() const final { return true; }
  void run(KernelContext& context) const final {
    CudaContext c(context);
    run_cuda(c);
  }
  virtual void run_cuda(CudaContext& context) const = 0;
};

/// Something copied to the device when it is first needed, and then kept: for a kernel's own weights and tables. Any thread.
class OnDevice {
 public:
  explicit OnDevice(Tensor host = {}) : host_(std::move(host)) {}
  void set(Tensor host) { host_ = std::move(host); }  ///< before it is first needed
  bool defined() const { return host_.defined(); }
  const Tensor& host() const { return host_; }
  /// The device's copy.
  const Tensor& get(CudaRun& run) const;
  /// Whether it has one.
  bool there() const;
  /// Gives the copy's memory back, while no run uses it.
  void drop() const;

 private:
  Tensor host_;
  mutable std::mutex mutex_;
  mutable Tensor device_;
};

/// A CUDA kernel of an operator. lib/ops/<stem>.cu defines `std::vector<infopt::cuda::CudaOp> cuda_<stem>()`; CMake makes the table.
struct CudaOp {
  std::string name;
  std::string domain = {};
  int64_t since = 1, until = std::numeric_limits<int64_t>::max();  ///< opset versions, inclusive
  /// Throws Error(Unsupported) with a reason where this node isn't one it can run.
  std::unique_ptr<Kernel> (*make)(const KernelSpec&) = nullptr;
};

}  // namespace infopt::cuda
