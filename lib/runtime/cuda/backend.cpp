#include "lib/runtime/cuda/backend.h"

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "cuda_op_table.h"  // generated
#include "lib/base/error.h"
#include "lib/runtime/cuda/context.h"
#include "lib/runtime/cuda/libraries.h"
#include "lib/runtime/cuda/pool.h"

namespace infopt {
namespace cuda {

namespace {
std::shared_ptr<Complaint> make_complaint() {
  auto* p = static_cast<Complaint*>(pinned_malloc(sizeof(Complaint)));
  *p = Complaint::None;
  return {p, [](Complaint* c) { pinned_free(c); }};
}

void hear(const std::shared_ptr<Complaint>& complaint) {
  if (!complaint || std::exchange(*complaint, Complaint::None) == Complaint::None) return;
  throw Error(ErrorKind::Malformed, "an index that the model reads from a tensor is out of range");
}
}  // namespace

Workspace::Workspace(std::shared_ptr<Libraries> all) : pool(std::make_shared<Pool>(kKeepBlocks)), libraries(std::move(all)), complaint(make_complaint()) {}
Workspace::~Workspace() = default;

CudaRun::~CudaRun() {
  summaries_ = {};
  try {
    if (stream().capturing()) abandon_capture();
    workspace_->stream.wait();
  } catch (const Error&) {
    return;  // what went wrong has been said; its stream isn't used again
  }
  *workspace_->complaint = Complaint::None;
  give_back_(std::move(workspace_));
}

Tensor CudaRun::make(DType dtype, Shape shape) { return make_in(pool(), dtype, std::move(shape)); }

Tensor CudaRun::make_in(Pool& from, DType dtype, Shape shape) {
  if (dtype == DType::String) throw Error(ErrorKind::Unsupported, "strings can't be on a CUDA device");
  const size_t bytes = bytes_of(dtype, element_count(shape));
  auto memory = from.take(bytes);
  void* data = memory.get();
  return Tensor(dtype, std::move(shape), std::move(memory), data);
}

Tensor CudaRun::to_device(const Tensor& host) {
  if (stream().capturing()) {
    // The same in every replay: copied now, beside the recording, into memory that nothing in it uses, before or after.
    Tensor device = make_in(*workspace_->pool, host.dtype(), host.shape());
    Stream beside;
    workspace_->staging.to_device(beside, device.mutable_raw(), host.raw(), host.bytes());
    beside.wait();
    captured_constants_.push_back(device);
    return device;
  }
  Tensor device = make(host.dtype(), host.shape());
  workspace_->staging.to_device(stream(), device.mutable_raw(), host.raw(), host.bytes());
  return device;
}

void CudaRun::wait() {
  if (stream().capturing()) throw Error(ErrorKind::Unsupported, "the host would have to wait for what is being recorded");
  stream().wait();
  hear(workspace_->complaint);
  hear(replayed_);
}

void CudaRun::copy_in(const Tensor& host, Tensor& device) { workspace_->staging.to_device(stream(), device.mutable_raw(), host.raw(), host.bytes()); }

namespace {
/// The recording before its memory: destroyed in that order.
class CudaGraph : public DeviceGraph {
 public:
  CudaGraph(std::shared_ptr<Pool> pool, std::shared_ptr<Complaint> of, std::vector<Tensor> constants, Summaries given, Recording* recording)
      : complaint(std::move(of)), summaries(std::make_shared<const Summaries>(std::move(given))), pool_(std::move(pool)), constants_(std::move(constants)), recording_(recording) {}
  ~CudaGraph() override { Stream::destroy(recording_); }
  Recording* recording() const { return recording_; }
  const std::shared_ptr<Complaint> complaint;
  const std::shared_ptr<const Summaries> summaries;

 private:
  std::shared_ptr<Pool> pool_;
  std::vector<Tensor> constants_;
  Recording* recording_;
};
}  // namespace

void CudaRun::begin_capture() {
  wait();
  capture_pool_ = std::make_shared<Pool>(true);
  complaint_ = make_complaint();
  stream().begin_capture();
}

std::shared_ptr<DeviceGraph> CudaRun::end_capture() {
  summaries_.copy_back(*this);
  Recording* recording = stream().end_capture();
  return std::make_shared<CudaGraph>(std::move(capture_pool_), std::exchange(complaint_, workspace_->complaint), std::exchange(captured_constants_, {}), std::exchange(summaries_, {}), recording);
}

void CudaRun::abandon_capture() {
  try {
    if (stream().capturing()) Stream::destroy(stream().end_capture());
  } catch (const Error&) {
    // A broken capture has no graph.
  }
  captured_constants_.clear();
  summaries_ = {};
  capture_pool_ = nullptr;
  complaint_ = workspace_->complaint;
}

void CudaRun::replay(DeviceGraph& graph, float* milliseconds) {
  Recording* recording = static_cast<CudaGraph&>(graph).recording();
  replayed_ = static_cast<CudaGraph&>(graph).complaint;
  replayed_summaries_ = static_cast<CudaGraph&>(graph).summaries;
  if (!milliseconds) return stream().replay(recording);
  Event start, end;
  start.record(stream());
  stream().replay(recording);
  end.record(stream());
  end.wait();
  *milliseconds = Event::milliseconds(start, end);
}

std::vector<TensorSummary> CudaRun::summaries() {
  if (!replayed_summaries_) summaries_.copy_back(*this);
  wait();
  const Summaries own = std::exchange(summaries_, {});
  return replayed_summaries_ ? replayed_summaries_->read() : own.read();
}

Tensor CudaRun::to_host(const Tensor& device) {
  if (stream().capturing()) throw Error(ErrorKind::Unsupported, "the host would have to read what is being recorded");
  Tensor host(device.dtype(), device.shape());
  workspace_->staging.to_host(stream(), host.mutable_raw(), device.raw(), host.bytes());
  wait();
  return host;
}

const Tensor& OnDevice::get(CudaRun& run) const {
  std::lock_guard lock(mutex_);
  if (!device_.defined()) {
    device_ = run.to_device(host_);
    run.wait();  // other streams will read it
    host_.release_pages();
  }
  return device_;
}

bool OnDevice::there() const {
  std::lock_guard lock(mutex_);
  return device_.defined();
}

void OnDevice::drop() const {
  std::lock_guard lock(mutex_);
  device_ = {};
}

namespace {

class FunctionKernel : public CudaKernel {
 public:
  FunctionKernel(CudaFunction function, std::string description) : function_(std::move(function)), description_(std::move(description)) {}
  void run_cuda(CudaContext& context) const override { function_(context); }
  std::string describe() const override { return description_; }

 private:
  CudaFunction function_;
  std::string description_;
};

const CudaOp* find_cuda_op(const std::string& domain, const std::string& name, int64_t opset) {
  static const std::vector<CudaOp> ops = [] {
    std::vector<CudaOp> all;
    for (const auto& family : cuda_op_families())
      for (auto& op : family()) all.push_back(std::move(op));
    return all;
  }();
  for (const CudaOp& op : ops)
    if (op.name == name && op.domain == domain && op.since <= opset && opset <= op.until) return &op;
  return nullptr;
}

/// Shared by all streams; hands out workspaces.
class CudaDevice : public Device {
 public:
  explicit CudaDevice(const DeviceOptions& options) : options_(options), facts_(open_device()) { keep(make_workspace()); }

  std::string name() const override { return "cuda"; }
  std::string description() const override {
    return facts_.name + ", compute capability " + std::to_string(facts_.major) + "." + std::to_string(facts_.minor) + ", driver " + facts_.driver + ", " + libraries_;
  }

  std::string bus_id() const override { return facts_.bus_id; }

  std::unique_ptr<Kernel> kernel(const KernelSpec& spec) const override {
    const CudaOp* op = find_cuda_op(spec.node.domain, spec.node.op, spec.opset);
    const std::string full = (spec.node.domain.empty() ? "" : spec.node.domain + ".") + spec.node.op;
    if (!op) throw Error(ErrorKind::Unsupported, "there is no CUDA kernel for " + full);
    return op->make(spec);
  }

  std::unique_ptr<DeviceRun> begin() const override {
    std::unique_ptr<Workspace> workspace;
    if (std::lock_guard lock(mutex_); !unused_.empty()) {
      workspace = std::move(unused_.back());
      unused_.pop_back();
    }
    if (!workspace) workspace = make_workspace();
    return std::make_unique<CudaRun>(std::move(workspace), [this](std::unique_ptr<Workspace> w) { keep(std::move(w)); });
  }

  std::unique_ptr<Kernel> conv(FusedConv how) const override { return make_fused_conv(std::move(how), options_.sparse); }
  std::unique_ptr<Kernel> product(FusedProduct how) const override { return make_fused_product(std::move(how), options_.sparse); }
  std::unique_ptr<Kernel> row_norm(FusedRowNorm how) const override { return make_row_norm(std::move(how)); }
  std::unique_ptr<Kernel> softmax(FusedSoftmax how) const override { return make_softmax(std::move(how)); }
  std::unique_ptr<Kernel> attention(FusedAttention how) const override { return make_attention(std::move(how)); }
  std::unique_ptr<Kernel> attention_operator(CodedAttention how) const override { return make_coded_attention(std::move(how)); }
  std::unique_ptr<Kernel> chain(const Graph& graph, FusedChain how) const override { return make_chain(graph, std::move(how)); }
  std::unique_ptr<Kernel> integer_conv(IntegerConv how) const override { return make_integer_conv(std::move(how), options_.sparse); }
  std::unique_ptr<Kernel> integer_product(IntegerProduct how) const override { return make_integer_product(std::move(how), options_.sparse); }
  std::unique_ptr<Kernel> dynamic_product(DynamicProduct how) const override { return make_dynamic_product(std::move(how), options_.sparse); }
  std::unique_ptr<Kernel> dynamic_conv(DynamicConv how) const override { return make_dynamic_conv(std::move(how), options_.sparse); }
  std::unique_ptr<Kernel> code_product(CodeProduct how) const override { return make_code_product(std::move(how)); }
  std::unique_ptr<Kernel> low_bit_product(LowBitProduct how) const override { return make_low_bit_product(std::move(how)); }
  std::unique_ptr<Kernel> float8_product(Float8Product how) const override { return make_float8_product(std::move(how)); }
  std::unique_ptr<Kernel> integer_table(IntegerTable how) const override { return make_integer_table(std::move(how)); }
  std::unique_ptr<Kernel> integer_binary(IntegerBinary how) const override { return make_integer_binary(std::move(how)); }
  std::unique_ptr<Kernel> integer_pool(IntegerPool how) const override { return make_integer_pool(std::move(how)); }

 private:
  std::unique_ptr<Workspace> make_workspace() const {
    std::shared_ptr<Libraries> libraries = Libraries::open(facts_, options_.tf32);
    if (std::lock_guard lock(mutex_); libraries_.empty()) libraries_ = libraries->versions();
    return std::make_unique<Workspace>(std::move(libraries));
  }
  void keep(std::unique_ptr<Workspace> workspace) const {
    std::lock_guard lock(mutex_);
    unused_.push_back(std::move(workspace));
  }

  DeviceOptions options_;
  DeviceFacts facts_;
  mutable std::mutex mutex_;
  mutable std::string libraries_;
  mutable std::vector<std::unique_ptr<Workspace>> unused_;
};

}  // namespace

std::unique_ptr<Kernel> make_cuda_kernel(CudaFunction function, std::string description) {
  return std::make_unique<FunctionKernel>(std::move(function), std::move(description));
}

}  // namespace cuda

void install_cuda() {
  set_cuda([](const DeviceOptions& options) -> std::shared_ptr<const Device> { return std::make_shared<cuda::CudaDevice>(options); });
}

}  // namespace infopt
