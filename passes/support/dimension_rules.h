// How each operator passes on the channels of what it reads. A new operator is one entry of a table.
#pragma once
#include <optional>
#include <string_view>
#include <vector>

#include "lib/ir/edit.h"
#include "passes/support/dimensions.h"

namespace infopt {

/// How often each position is to be there, for the rules that rewrite numbers in a node.
class Removal {
 public:
  /// `copies` by class (Dimensions::find): 0 goes, 1 stays, more stand side by side.
  Removal(const Dimensions& dimensions, const std::vector<int>& copies) : dimensions_(dimensions), copies_(copies) {}
  const Dimensions& dimensions() const { return dimensions_; }
  int copies(int32_t atom) const { return copies_[static_cast<size_t>(dimensions_.find(atom))]; }
  int64_t kept(const Positions& atoms) const { return kept(atoms, 0, static_cast<int64_t>(atoms.size())); }
  int64_t kept(const Positions& atoms, int64_t begin, int64_t end) const;  ///< what positions [begin, end) become
  bool touches(ValueId value) const;                                      ///< an axis of it changes

 private:
  const Dimensions& dimensions_;
  const std::vector<int>& copies_;
};

struct DimensionRule {
  std::vector<std::string_view> ops;
  /// Sets the output's axes, joins, uses and locks. Called where an input is tracked, or always where it `begins`.
  void (*link)(Dimensions&, const Node&);
  /// Changes the node's own numbers (group, split sizes, shapes) for what goes; may be null. Constants that are used shrink by themselves.
  void (*rewrite)(GraphEdit&, NodeId, const Removal&) = nullptr;
  bool begins = false;  ///< makes channels of its own
};

/// Null where there is none.
const DimensionRule* find_dimension_rule(const Node& node);

// One a family.
std::vector<DimensionRule> product_dimension_rules();      ///< dimension_products.cpp
std::vector<DimensionRule> elementwise_dimension_rules();  ///< dimension_rules.cpp
std::vector<DimensionRule> layout_dimension_rules();       ///< dimension_layouts.cpp
std::vector<DimensionRule> part_dimension_rules();         ///< dimension_parts.cpp

/// The constant integers of an input, or of the attribute where older versions have it.
std::optional<std::vector<int64_t>> integers(const Dimensions& d, const Node& node, size_t input, const char* attribute);

/// Copies the tracked axes of x to y, each at the place that `to` says; -1: the axis is gone, which locks what is tracked there.
void pass_axes(Dimensions& d, const Node& node, ValueId x, ValueId y, const std::vector<int64_t>& to);
/// The same for all axes in place.
void pass_axes(Dimensions& d, ValueId x, ValueId y);

}  // namespace infopt
