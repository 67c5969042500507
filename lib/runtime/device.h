// A device besides the CPU that a session runs on: it holds tensors in its own memory and makes kernels for nodes and for what the
// fusion rules find.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "lib/ops/op.h"
#include "lib/runtime/fused_ops.h"
#include "lib/runtime/summary.h"

namespace infopt {

/// Work that was recorded, and the memory that it uses.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
};

/// One run's part of a device: a stream of work and its memory. One thread's at a time.
class DeviceRun {
 public:
  virtual ~DeviceRun() = default;
  /// Uninitialized memory of the device. The tensor's data() is an address there.
  virtual Tensor make(DType dtype, Shape shape) = 0;
  virtual Tensor to_device(const Tensor& host) = 0;
  /// Waits until the tensor is made.
  virtual Tensor to_host(const Tensor& device) = 0;
  virtual Tensor convert_layout(const Tensor& device, Layout from, Layout to) = 0;
  /// Waits for all work; throws what went wrong in it.
  virtual void wait() = 0;
  /// Into a tensor of the device with the same shape and type.
  virtual void copy_in(const Tensor& host, Tensor& device) = 0;
  /// From here on work is recorded, in memory that the graph will keep. What would have to wait for it throws Error(Unsupported).
  virtual void begin_capture() = 0;
  virtual std::shared_ptr<DeviceGraph> end_capture() = 0;
  virtual void abandon_capture() = 0;
  /// Milliseconds that it took on the device, where `milliseconds` isn't null: it is then waited for.
  virtual void replay(DeviceGraph& graph, float* milliseconds) = 0;
  /// Asks for a summary of a tensor of the device, which may go as soon as this returns. False for a type that can't be summarized there.
  virtual bool summarize(const Tensor& device, Layout layout, const SummaryRequest& request) = 0;
  /// Waits; the summaries asked for, in their order, or those of the graph replayed last.
  virtual std::vector<TensorSummary> summaries() = 0;
};

/// Whether zeros of constant weights that lie 2:4 or in blocks are left out: where that is faster on the device, wherever it can be done, or nowhere.
enum class SparseUse { Auto, Always, Never };
/// Of a kernel's description, until a run has shown which is faster.
inline constexpr const char* kTimedInFirstRun = "dense or sparse, timed in the first run";

struct DeviceOptions {
  bool tf32 = false;  ///< float32 products and convolutions may round their operands to 10 bits of mantissa
  SparseUse sparse = SparseUse::Auto;
};

/// Shared by the sessions that run on it.
class Device : public FusedKernels {
 public:
  virtual std::string name() const = 0;  ///< "cuda"
  /// The hardware, its driver and libraries, in words.
  virtual std::string description() const = 0;
  /// Its place on the PCI bus, as in "0000:3b:00.0"; empty where it has none.
  virtual std::string bus_id() const { return {}; }
  /// The node's kernel. Throws Error(Unsupported) with the reason where there is none.
  virtual std::unique_ptr<Kernel> kernel(const KernelSpec& spec) const = 0;
  virtual std::unique_ptr<DeviceRun> begin() const = 0;
};

/// Throws Error(Unsupported) saying what is missing.
using DeviceOpener = std::shared_ptr<const Device> (*)(const DeviceOptions& options);
/// What "cuda" opens; null where this build has no CUDA. Set once, when a program begins.
void set_cuda(DeviceOpener opener);
std::shared_ptr<const Device> open_cuda(const DeviceOptions& options = {});

}  // namespace infopt
