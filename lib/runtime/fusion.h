// How several nodes become one step of a plan. A rule looks at a node and, through its operands' producers, at what leads to it; where it
// knows a kernel for the whole it says which values that kernel reads. Nodes that nobody reads any more then vanish, and those whose outputs
// the kernel makes besides.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/ops/op.h"
#include "lib/runtime/device.h"

namespace infopt {

/// The graph as a rule may see it.
class PlanView : public KnownValues {
 public:
  virtual const Graph& graph() const = 0;
  /// True where only nodes of this graph read the value: no output, no tap, no body.
  virtual bool hidden(ValueId value) const = 0;
  virtual int64_t opset(const std::string& domain) const = 0;
  /// Where the node stands in the graph's order.
  virtual int64_t position(NodeId node) const = 0;
  /// True where a rule joins the node with those before it: a chain had better leave it alone.
  virtual bool taken(const Node& node) = 0;
  /// What the plan runs on besides the CPU; null where it is the CPU alone.
  virtual const Device* device() const = 0;
  /// The node's own kernel, on the device where there is one. Throws Error(Unsupported).
  virtual std::unique_ptr<Kernel> make_kernel(const Node& node) = 0;
  /// Says why a faster kernel can't take the node, for `inspect --plan`.
  virtual void refuse(const Node& node, std::string reason) = 0;

  const Node* producer(ValueId value) const { return value == kNone ? nullptr : graph().producer(value); }
  /// The node that makes the value, where exactly one input of one node reads it and nobody else sees it.
  const Node* only_for_one(ValueId value) const;
};

/// What stands for the node and those before it: its outputs are the node's, and then those of `also`.
struct FusedStep {
  std::vector<ValueId> inputs;
  std::unique_ptr<Kernel> kernel;
  std::vector<NodeId> covers = {};  ///< the nodes that it computes besides
  NodeId named = kNone;             ///< the one that errors and profiles name; kNone: the node
  std::vector<ValueId> also = {};   ///< all outputs of covered nodes that only nodes behind this one read besides
};
using FusionRule = std::optional<FusedStep> (*)(PlanView& view, const Node& node);

/// The first rule that takes the node, but for the chains of elementwise nodes.
std::optional<FusedStep> fuse(PlanView& view, const Node& node);
/// Elementwise float32 nodes that end in this one, or on a device in what this one quantizes, as one step.
std::optional<FusedStep> fuse_chain(PlanView& view, const Node& node);

/// True for the operators that may map each element by itself (some only with constant parameters).
bool is_elementwise(const Node& node);

/// An activation that is a pair of bounds: Relu, or Clip between constants.
bool as_bounds(PlanView& view, const Node& node, PostActivation& post);

}  // namespace infopt
