// Another order of the channels between layers, by which an N:M pattern takes less away.
#pragma once
#include <cstdint>
#include <vector>

#include "lib/ir/edit.h"
#include "passes/support/dimensions.h"

namespace infopt {

/// Every class's positions are given to another: the channels of class c come to lie where those of `moved[c]` were, wherever they are; the
/// function stays. Classes that change places must be alike (like_classes).
void permute_channels(GraphEdit& edit, const Dimensions& dimensions, const std::vector<int32_t>& moved);

/// Lists of classes that may change places among each other: on every axis each of them has as many positions, one or a run. Heads are in none.
std::vector<std::vector<int32_t>> like_classes(const Dimensions& dimensions);

/// |w| of what reads channels, columns[i] of input i, all of one length, a multiple of 16 filled up with zeros. What stays of a group of m columns is the
/// sum of the n largest of each row.
using ColumnScores = std::vector<std::vector<float>>;

/// An order of the columns (entry i: which one comes to place i) by which n of each m successive ones keep more: the pair of columns of two groups that
/// gain most change places, group after group, as long as any gains (channel permutations for N:M sparsity, NeurIPS 2021). Only columns that `may_move`.
std::vector<int64_t> order_for_pattern(const ColumnScores& columns, const std::vector<bool>& may_move, int64_t n, int64_t m);
/// What stays in that order.
double kept_by_pattern(const ColumnScores& columns, const std::vector<int64_t>& order, int64_t n, int64_t m);

struct Permuted {
  int64_t channels = 0, groups = 0;  ///< that moved
  double before = 0, after = 0;      ///< the share of |w| of their readers that stays
};
/// Does so for all groups of channels that constant weights read.
Permuted permute_for_pattern(GraphEdit& edit, const Dimensions& dimensions, int64_t n, int64_t m);

}  // namespace infopt
