// What a Session makes of a graph once: the nodes to run in order, each with its kernel, and when each value may go.
#pragma once
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "lib/ops/op.h"
#include "lib/runtime/device.h"
#include "lib/runtime/device_graph.h"
#include "lib/runtime/session.h"

namespace infopt {

struct PlanStep {
  NodeId node = kNone;            ///< what errors and profiles name
  std::vector<ValueId> inputs, outputs, captures;
  std::vector<NodeId> covers;     ///< what a fused kernel computes besides the node
  std::string refusal;            ///< why a faster kernel, or the device, couldn't take it; may be empty
  bool of_shapes = false;         ///< arithmetic on shapes, which the host does for a device
  bool shape_only = false;        ///< reads shapes, not elements
  std::unique_ptr<Kernel> kernel;
  std::vector<std::unique_ptr<class Plan>> bodies;
  std::vector<ValueId> free_after;
  std::vector<ValueId> tapped;    ///< outputs that a tap sees
};

/// Consecutive steps that each make an item of their outputs from that item of their inputs (ByItem): a batch may run through them in parts.
struct Stretch {
  size_t begin = 0, end = 0;          ///< steps
  std::vector<ValueId> inputs;        ///< of other steps, or given
  std::vector<ValueId> constants;     ///< that are operands, not weights
  std::vector<ValueId> outputs;       ///< that are needed behind it
};

class Plan {
 public:
  /// `parent` is the plan that a body's outer values come from; null for a whole model.
  Plan(const Graph& graph, SessionOptions options, const Plan* parent);
  ~Plan();

  const Graph& graph() const { return graph_; }
  const std::vector<PlanStep>& steps() const { return steps_; }
  const std::vector<Stretch>& stretches() const { return stretches_; }
  /// How many items of a batch go through a stretch at a time, by its inputs' shapes: known once some have gone.
  std::optional<int64_t> items_at_once(const Stretch& stretch, const std::vector<Shape>& inputs) const;
  void note_items_at_once(const Stretch& stretch, const std::vector<Shape>& inputs, int64_t items) const;
  const std::vector<ValueId>& fetches() const { return fetches_; }
  const std::vector<std::pair<ValueId, Tensor>>& constants() const { return constants_; }
  const std::vector<ValueId>& outer_values() const { return outer_; }
  bool tapped(ValueId id) const { return tapped_[static_cast<size_t>(id)]; }
  bool fed(ValueId id) const { return id != kNone && graph_.value(id).graph_input; }
  bool profiling() const { return options_.profile || options_.trace; }
  int threads() const { return options_.threads; }
  const Device* device() const { return options_.device.get(); }
  DeviceGraphs& graphs() const { return graphs_; }
  bool times_device() const { return options_.time_device; }
  /// The constant `value` in the device's memory, copied there once. Null where it is none.
  const Tensor* device_constant(ValueId value, DeviceRun& run) const;
  using Clock = std::chrono::steady_clock;
  /// Notes a step's run for profile() and events(). Any thread.
  void add_time(size_t step, Clock::time_point start, Clock::time_point end, const Tensor& output) const;
  std::vector<Session::NodeTime> profile() const;
  std::vector<Session::NodeEvent> events() const;
  /// The graph's own opsets, or the enclosing graph's where a body doesn't say.
  int64_t opset(const std::string& domain) const;

 private:
  void plan_lifetimes();

  const Graph& graph_;
  SessionOptions options_;
  const Plan* parent_;
  std::vector<ValueId> fetches_, outer_;
  std::vector<bool> tapped_;
  std::vector<PlanStep> steps_;
  std::vector<Stretch> stretches_;
  mutable std::map<std::pair<size_t, std::vector<Shape>>, int64_t> items_at_once_;
  std::vector<std::pair<ValueId, Tensor>> constants_;
  mutable std::unordered_map<ValueId, Tensor> device_constants_;
  mutable DeviceGraphs graphs_;
  mutable std::mutex mutex_;
  mutable std::vector<std::pair<double, int64_t>> times_;
  mutable std::vector<Session::NodeEvent> events_;
  mutable std::map<std::thread::id, int> threads_;
  Clock::time_point made_ = Clock::now();
};

}  // namespace infopt
