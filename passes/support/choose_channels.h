// How much of each group goes: what it costs the outputs is measured, group by group and alone, and weighed against what it saves.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "passes/pass.h"
#include "passes/support/channel_scores.h"
#include "passes/support/live_places.h"

namespace infopt {

struct ChoiceOptions {
  std::string score = "reconstruction";
  double reduce = 0.3;       ///< share of the cost that is to go
  int64_t multiple = 8;      ///< positions that stay are a multiple of it
  bool strict = false;       ///< in small groups too; else of those a smaller power of 2
  int64_t finest = 0;        ///< 0, or a smaller multiple that may stay of any group
  double most = 0.75;        ///< of a group
  bool uniform = false;      ///< the same share of every group
  int64_t samples = 16;      ///< that damage is measured on
  int64_t fit = 0;           ///< that moments are taken of, at most; 0: all
  const LivePlaces* live = nullptr;  ///< places that count; null: all
};

struct GroupChoice {
  size_t group = 0;          ///< of ChannelGroups
  Ranking ranking;
  std::vector<GroupReader> readers;
  std::vector<size_t> steps;                            ///< how many classes may go, ascending
  std::vector<std::pair<size_t, double>> measured;      ///< classes gone, noise over signal of the outputs
  size_t removed = 0;
  /// Noise over signal that the first k classes cost the outputs: what was measured, and between that by the ranking's cost.
  double damage(size_t k) const;
};

/// One for each of `usable` (groups by number) that has readers and can shrink: ranked, and measured unless `uniform`.
std::vector<GroupChoice> rank_groups(const Dimensions& dimensions, const ChannelGroups& groups, const std::vector<size_t>& usable, const ChoiceOptions& options, PassContext& context);
/// Fills in `removed`, and takes it off `costs`; true where the target is reached. `felt`: the same costs as kernels feel them, in steps of channels; may be
/// null. Of those three quarters of `reduce` are to go, too: what saves nothing of them is taken less gladly, and where they are short, more goes.
bool choose_counts(std::vector<GroupChoice>& choices, RemovalCosts& costs, RemovalCosts* felt, const ChoiceOptions& options);

/// The biggest power of 2, at most `multiple`, that leaves a group of so many positions at least four counts to choose from.
int64_t multiple_for(int64_t positions, int64_t multiple);

}  // namespace infopt
