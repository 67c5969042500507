// What an operator costs in a target's float and in its integer kernel: static figures, measured once, from the shapes that calibration
// saw. They only have to be right in proportion.
#pragma once
#include <optional>
#include <vector>

#include "calibration/calibration.h"
#include "passes/profile.h"
#include "passes/support/layers.h"

namespace infopt {

/// Nanoseconds on one thread, batch as observed.
struct NodeCost {
  double in_float = 0;
  std::optional<double> in_integer;  ///< empty where the target has no integer kernel for it
  std::optional<double> dynamic;     ///< of a product with ranges taken at run time
};

class CostModel {
 public:
  CostModel(const Graph& graph, const std::vector<Observed>& seen, const Profile& profile) : graph_(graph), seen_(seen), profile_(profile) {}

  NodeCost node(const Node& node) const;
  /// Making a float tensor integer, and an integer tensor float, between those neighbours.
  double quantize(ValueId value) const;
  double dequantize(ValueId value) const;
  /// What a MaxPool of 8-bit codes takes more where they come channels first; behind an integer convolution they come channels last.
  double plain_pool(const Node& pool) const;
  /// Whether the figures are times, and integer must gain by a margin.
  bool weighs() const { return profile_.weigh_cost; }

 private:
  int64_t elements(ValueId value) const;  ///< 0 where it wasn't seen
  const Shape* shape(ValueId value) const;
  NodeCost convolution(const Node& node, const Layer& layer) const;
  NodeCost product(const Node& node, const Layer& layer) const;
  NodeCost elementwise(const Node& node) const;
  /// The pool that makes the value, if codes go through it in that order: ONNX Runtime moves a QuantizeLinear behind a MaxPool in front of it.
  double pool_before(ValueId value) const;
  bool after_convolution(const Node& node) const;
  bool blocked(const Node* node) const;

  const Graph& graph_;
  const std::vector<Observed>& seen_;
  const Profile& profile_;
};

/// Operators that only move elements: their output has their input's scale.
bool only_moves(const Node& node);

}  // namespace infopt
