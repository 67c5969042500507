// In which order the classes of a group go, and what that costs what reads them.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "passes/support/channel_groups.h"
#include "passes/support/channel_moments.h"
#include "passes/support/layers.h"

namespace infopt {

/// The first classes of `order` go first. `cost[k]`, from cost[0] = 0 on, is what the first k cost: of the scores by reconstruction the share of the
/// readers' outputs that the others can't make up for, of other scores their sum as a share of all.
struct Ranking {
  std::vector<int32_t> order;
  std::vector<double> cost;
};

/// A layer that sums over a group, and what it reads.
struct GroupReader {
  Layer layer;
  ChannelAxis input;
  std::vector<std::vector<int64_t>> columns;  ///< of each of the group's classes, in its order
};

/// The readers whose weights are constant floats.
std::vector<GroupReader> readers_of(const Dimensions& dimensions, const ChannelGroup& group);

/// `score`: reconstruction (classes go one after the other, each time the one that the rest explains best: of the weights Wᵀ over the inputs' covariance H,
/// tr(W_c [(H⁻¹)_cc]⁻¹ W_cᵀ), with H⁻¹ and W brought up to date), activation, l1, l2, bn_scale. `moments` may be empty for the last three.
Ranking rank_classes(const Dimensions& dimensions, const ChannelGroup& group, const std::vector<GroupReader>& readers, const std::map<ChannelAxis, ChannelMoments>& moments, const std::string& score, int threads);

/// The reader's weights W[out][in][tap] when those of the inputs' channels that `gone` says are away and the others make up for them as well as they can,
/// and what is then missing on the mean of each output. `gone` is over all channels of the input.
struct Compensated {
  std::vector<float> weights;
  std::vector<double> bias;
};
Compensated compensate(const Graph& graph, const GroupReader& reader, const ChannelMoments& moments, const std::vector<bool>& gone, int threads);

}  // namespace infopt
