// Which dimensions of a graph's tensors must shrink together: each position of an axis that weights make (a channel, a neuron, a part of a head)
// is an atom; atoms that can only go together are joined into a class.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "calibration/calibration.h"
#include "lib/ir/graph.h"
#include "passes/support/shape_values.h"

namespace infopt {

/// The atom at each position of an axis.
using Positions = std::vector<int32_t>;

/// What a constant's axis is to its node: what makes channels, what sums over them, or what goes along (biases, scales, depthwise kernels).
enum class AxisRole { Makes, Reads, Follows };

/// An axis of a constant input that shrinks.
struct AxisUse {
  NodeId node = kNone;
  size_t input = 0;
  int64_t axis = 0;
  AxisRole role = AxisRole::Follows;
  Positions atoms;
};

/// Why a class can't go, and what made it so.
struct Lock {
  std::string reason;
  NodeId node = kNone;
  bool output = false;  ///< it is a dimension of the model's outputs: nothing could change that
};

/// Follows the channels of every product through the graph by the table in dimension_rules.h. What has no rule ends the way: its channels
/// are locked, with the reason.
class Dimensions {
 public:
  /// `seen` helps where sizes aren't declared; may be empty. `model` is what `graph` belongs to. Both must outlive this and not change.
  Dimensions(const Model& model, const Graph& graph, std::vector<Observed> seen);

  const Graph& graph() const { return graph_; }
  /// The atoms along an axis; null where it doesn't shrink.
  const Positions* axis(ValueId value, int64_t axis) const;
  const std::map<std::pair<ValueId, int64_t>, Positions>& axes() const { return axes_; }
  const std::vector<AxisUse>& uses() const { return uses_; }
  int32_t find(int32_t atom) const;
  int64_t atoms() const { return static_cast<int64_t>(parent_.size()); }
  const Lock* locked(int32_t atom) const;
  /// Heads: it goes through products of activations. Width: something normalizes or sums over it, so that to remove it isn't to zero it.
  bool is_head(int32_t atom) const { return head_.contains(find(atom)); }
  bool is_width(int32_t atom) const { return width_.contains(find(atom)); }

  // For the rules.
  int64_t rank(ValueId value) const;                ///< -1 where it isn't known
  int64_t size(ValueId value, int64_t axis) const;  ///< as inferred, of constants too, or as seen; -1 where it isn't known
  bool same_size(ValueId a, int64_t i, ValueId b, int64_t j) const;  ///< in every run
  ShapeValues& shapes() const { return *shapes_; }
  bool tracked(ValueId value) const;                ///< any of its axes is
  /// A constant, or what a DequantizeLinear of constants makes for one reader: weights.
  bool weights(ValueId value) const;
  Positions fresh(int64_t count);
  void set(ValueId value, int64_t axis, Positions atoms);
  void join(int32_t a, int32_t b);
  void join(const Positions& a, const Positions& b);  ///< of one length, else both are locked
  void lock(const Positions& atoms, NodeId node, const std::string& reason, bool output = false);
  void lock_inputs(const Node& node, const std::string& reason);  ///< all that it reads
  void mark_head(const Positions& atoms);
  void mark_width(const Positions& atoms);
  /// The axis of an input that is weights() shrinks with those atoms.
  void use(const Node& node, size_t input, int64_t axis, AxisRole role, const Positions& atoms);
  /// The axis of any input shrinks with those atoms: joined where it is tracked, used where it is weights, else they are locked.
  void tie(const Node& node, size_t input, int64_t axis, AxisRole role, const Positions& atoms);

 private:
  void run();
  void settle_marks();
  const Graph& graph_;
  std::vector<Observed> seen_;
  std::shared_ptr<Graph> inferred_;
  std::unique_ptr<ShapeValues> shapes_;
  std::map<std::pair<ValueId, int64_t>, Positions> axes_;
  std::vector<bool> tracked_;
  std::vector<AxisUse> uses_;
  mutable std::vector<int32_t> parent_;
  std::vector<std::pair<int32_t, Lock>> lock_list_;
  std::vector<int32_t> head_list_, width_list_;
  std::map<int32_t, Lock> locks_;  ///< by class
  std::map<int32_t, bool> head_, width_;
};

}  // namespace infopt
