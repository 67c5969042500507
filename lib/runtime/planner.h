// Decides what a plan runs: which nodes are needed, which are the same in every run, and which become one step.
#pragma once
#include <string>
#include <unordered_map>
#include <vector>

#include "lib/runtime/fusion.h"
#include "lib/runtime/plan.h"

namespace infopt {

class Planner : public PlanView {
 public:
  Planner(const Plan& plan, const Graph& graph, const SessionOptions& options, const std::vector<ValueId>& fetches);

  const Graph& graph() const override { return graph_; }
  const Tensor* constant(ValueId value) override;
  bool hidden(ValueId value) const override { return !seen_[static_cast<size_t>(value)]; }
  int64_t opset(const std::string& domain) const override { return plan_.opset(domain); }
  int64_t position(NodeId node) const override { return position_[static_cast<size_t>(node)]; }
  bool taken(const Node& node) override;
  const Device* device() const override { return options_.device.get(); }
  std::unique_ptr<Kernel> make_kernel(const Node& node) override;
  void refuse(const Node& node, std::string reason) override { refusals_[node.id] = std::move(reason); }

  /// In the order to run them. Throws Error(Unsupported) naming the operator that infopt can't run.
  std::vector<PlanStep> make_steps();
  /// The constants that the steps and the fetches read.
  std::vector<std::pair<ValueId, Tensor>> constants_of(const std::vector<PlanStep>& steps);

 private:
  void see(ValueId value) { if (value != kNone) seen_[static_cast<size_t>(value)] = true; }
  void find_foldable();
  bool foldable(ValueId value) const { return value != kNone && foldable_[static_cast<size_t>(value)]; }
  void fold(const Node& node);
  bool needed(const Node& node) const;
  void choose_steps();
  /// Arithmetic on shapes is the host's, whatever the device.
  bool of_shapes(const Node& node) const;
  std::unique_ptr<Kernel> make_kernel_for(const Node& node, PlanStep& step);
  std::unique_ptr<Kernel> make_device_kernel(const Node& node, PlanStep& step);

  const Plan& plan_;
  const Graph& graph_;
  const SessionOptions& options_;
  const std::vector<ValueId>& fetches_;
  std::vector<bool> seen_, foldable_, demanded_, matched_, made_, shape_values_;  ///< made_: by a step of a node behind their own
  std::vector<int64_t> position_;
  std::unordered_map<ValueId, Tensor> known_;
  std::unordered_map<NodeId, FusedStep> fused_;
  std::unordered_map<NodeId, std::string> refusals_;
};

}  // namespace infopt
