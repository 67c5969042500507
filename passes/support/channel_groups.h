// What can be taken out of a graph: groups of channels, neurons or heads that lie side by side, and what each removal saves.
#pragma once
#include <string>
#include <vector>

#include "passes/support/dimensions.h"
#include "passes/support/flops.h"

namespace infopt {

enum class GroupKind { Channels, Neurons, Heads, Width };
std::string_view name_of(GroupKind kind);

/// Classes that the same weights make.
struct ChannelGroup {
  GroupKind kind = GroupKind::Channels;
  std::vector<int32_t> classes;   ///< in the order of their first position
  int64_t width = 1;              ///< positions of the first maker's axis that a class takes
  std::vector<size_t> makers;     ///< places in Dimensions::uses()
  std::vector<size_t> readers;    ///< uses that sum over any of them
  NodeId node = kNone;            ///< the first maker
};

/// Channels that stay whatever is asked, and why.
struct LockedChannels {
  NodeId node = kNone;    ///< the first that makes them
  int64_t positions = 0;
  Lock lock;
};

class ChannelGroups {
 public:
  explicit ChannelGroups(const Dimensions& dimensions);
  const std::vector<ChannelGroup>& groups() const { return groups_; }
  const std::vector<LockedChannels>& locked() const { return locked_; }
  int64_t positions() const { return positions_; }          ///< that weights make, in all
  int64_t impossible() const;                               ///< of those, locked for another reason than being an output
  int group_of(int32_t atom) const;                         ///< -1 where its class is in none

 private:
  const Dimensions& dimensions_;
  std::vector<ChannelGroup> groups_;
  std::vector<LockedChannels> locked_;
  std::vector<int> group_of_;  ///< by class
  int64_t positions_ = 0;
};

/// What a graph costs as classes go, kept up to date.
class RemovalCosts {
 public:
  enum class Unit { Macs, Parameters, Bytes, Time };
  /// `weights` are of Unit::Time: milliseconds by NodeId; else empty. `at_once`: channels count in steps of so many, as where kernels take so many at once.
  RemovalCosts(const Dimensions& dimensions, const GraphCosts& costs, Unit unit, std::vector<double> weights = {}, int64_t at_once = 1);
  double total() const { return total_; }
  /// What the classes save together when they go now; no change.
  double saving(const std::vector<int32_t>& classes) const;
  void remove(const std::vector<int32_t>& classes);
  void restore(const std::vector<int32_t>& classes);

 private:
  struct Axis {
    std::vector<int32_t> classes;  ///< at each position
    int64_t kept = 0;
  };
  struct Term {
    double cost = 0;
    std::vector<size_t> axes;
  };
  void add_rest(double total);  ///< what no term stands for, and stays
  size_t axis_of(const Positions& atoms);
  double value(const Term& t) const;
  void change(const std::vector<int32_t>& classes, int64_t by, std::vector<size_t>& touched) const;
  const Dimensions* dimensions_;
  mutable std::vector<Axis> axes_;
  std::map<Positions, size_t> known_;
  std::vector<Term> terms_;
  std::vector<std::vector<size_t>> terms_of_axis_;
  std::vector<std::vector<std::pair<size_t, int64_t>>> places_;  ///< by class: axes, and how many positions of them
  double total_ = 0;
  int64_t at_once_;
};

}  // namespace infopt
