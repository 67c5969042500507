// Runs a graph on the CPU, or on a device.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/ir/graph.h"
#include "lib/ops/op.h"

namespace infopt {

/// Sees tensors as they are made. Called on the thread that runs; the tensor is valid only during the call. `layout`
/// says how its elements lie.
using Tap = std::function<void(ValueId value, const Tensor& tensor, Layout layout)>;

struct SessionOptions {
  /// What to compute: values of the graph; empty means its outputs.
  std::vector<ValueId> fetches;
  /// Values that a Tap will want to see: they are computed, and no fusion hides them.
  std::vector<ValueId> taps;
  /// Operators may be fused (Conv with its activation…) where no tap or fetch sees in between. Results may differ by rounding.
  bool fuse = true;
  /// What is the same in every run is computed once and kept: faster from the third run or so on, for more memory.
  bool fold = true;
  /// Threads that one run may use. The results don't depend on it.
  int threads = 1;
  /// Null: the CPU. What the device has no kernel for runs on the CPU, unless `fallback` is off.
  std::shared_ptr<const class Device> device = nullptr;
  /// Off: Error(Unsupported), naming the node and the reason, where the device has no kernel for it.
  bool fallback = true;
  /// How long recorded runs take on the device alone, without the copies to it and back, is kept for device_times().
  bool time_device = false;
  /// Milliseconds by node, summed over runs, are kept for profile().
  bool profile = false;
  /// Every run of a node is kept for events().
  bool trace = false;
};

/// Made once from a graph, which must outlive it and not change. Many threads may call run() at once: each run is one
/// thread's, and gives the same bits whatever the others do.
class Session {
 public:
  /// Throws Error(Unsupported) naming the operator and node that infopt can't run.
  explicit Session(const Graph& graph, SessionOptions options = {});
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Inputs by value id: the graph's inputs (those with a default may be left out), or values that the options name as taps, which then
  /// aren't computed (others may have vanished into a fused step). Returns the fetches in their order.
  /// Throws Error(Malformed) where an input is missing, or where shapes or types don't fit, naming the node.
  std::vector<Tensor> run(const std::unordered_map<ValueId, Tensor>& inputs, const Tap& tap = {}) const;
  /// The same by input name. Throws Error(Malformed) for a name that the graph doesn't have.
  std::vector<Tensor> run(const std::map<std::string, Tensor>& inputs, const Tap& tap = {}) const;

  /// The same with summaries of what a device made, instead of copies: a value in its memory is summarized there, and told of when the run ends.
  /// Values that lie in the host's memory, all of them where there is no device, are shown as they are made.
  std::vector<Tensor> run(const std::map<std::string, Tensor>& inputs, class SummaryTap& tap) const;

  /// The same for models whose inputs or outputs are sequences or optionals, too.
  std::vector<Datum> run_data(const std::map<std::string, Datum>& inputs) const;

  /// `covers` are the nodes that a fused kernel computes besides; `kernel` is what it says of itself, perhaps nothing.
  struct NodeTime {
    NodeId node;
    double milliseconds;
    int64_t calls;
    std::vector<NodeId> covers = {};
    std::string kernel = {};
  };
  std::vector<NodeTime> profile() const;

  /// One step of the plan, in the order of running. `covers`: the other nodes that its kernel computes. `refusal`: why a faster kernel
  /// couldn't take it; may be empty. What is the same in every run is no step: it was computed when the plan was made.
  struct PlanLine {
    NodeId node;
    std::vector<NodeId> covers;
    std::string kernel, refusal;
    enum Place { Cpu, OnDevice, Shapes } place = Cpu;  ///< Shapes: arithmetic on shapes, which the host does for a device
  };
  std::vector<PlanLine> plan() const;
  /// One run of a node of the main graph. Times are milliseconds since the session was made; threads count from 0 in the order in
  /// which they came; `shape` is the first output's.
  struct NodeEvent { NodeId node; double start_ms, end_ms; int thread; Shape shape; };
  std::vector<NodeEvent> events() const;
  /// Recordings that runs on the device replay: the second run with the same shapes makes one.
  int64_t recorded_runs() const;
  /// Milliseconds of the recorded runs since the last call, see SessionOptions::time_device.
  std::vector<float> device_times() const;

  struct Impl;  ///< the plan; lib/runtime only

 private:
  std::unique_ptr<Impl> impl_;
};

/// Checks a sample's tensor against the declared type of a graph input: element type, rank and fixed dimensions.
/// Throws Error(Malformed) naming the input, what it has and what is expected.
void check_input(const Value& input, const Tensor& tensor);

}  // namespace infopt
