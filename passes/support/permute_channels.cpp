#include "passes/support/permute_channels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>

#include "lib/base/simd.h"
#include "passes/support/channel_groups.h"
#include "passes/support/channel_scores.h"
#include "passes/support/layers.h"
#include "passes/support/remove_channels.h"

namespace infopt {
namespace {

constexpr int64_t kLanes = 16;
constexpr int kSweeps = 8;
constexpr int64_t kBudget = int64_t{1} << 27;  ///< rows looked at in a sweep

/// The sum of the two largest of each row.
INFOPT_SIMD double keep_2_of_4(const float* a, const float* b, const float* c, const float* d, int64_t rows) {
  float sums[kLanes] = {};
  for (int64_t r = 0; r < rows; r += kLanes)
    for (int64_t i = 0; i < kLanes; ++i) {
      const float x = a[r + i], y = b[r + i], z = c[r + i], w = d[r + i];
      const float high1 = x > y ? x : y, low1 = x > y ? y : x, high2 = z > w ? z : w, low2 = z > w ? w : z;
      const float first = high1 > high2 ? high1 : high2, other = high1 > high2 ? high2 : high1, low = low1 > low2 ? low1 : low2;
      sums[i] += first + (other > low ? other : low);
    }
  double sum = 0;
  for (const float s : sums) sum += static_cast<double>(s);
  return sum;
}

double keep(const std::vector<const float*>& group, int64_t n, int64_t rows) {
  if (n == 2 && group.size() == 4) return keep_2_of_4(group[0], group[1], group[2], group[3], rows);
  std::vector<float> row(group.size());
  double sum = 0;
  for (int64_t r = 0; r < rows; ++r) {
    for (size_t i = 0; i < group.size(); ++i) row[i] = group[i][r];
    std::partial_sort(row.begin(), row.begin() + std::min<int64_t>(n, static_cast<int64_t>(row.size())), row.end(), std::greater<>());
    for (int64_t i = 0; i < std::min<int64_t>(n, static_cast<int64_t>(row.size())); ++i) sum += static_cast<double>(row[static_cast<size_t>(i)]);
  }
  return sum;
}

class Search {
 public:
  Search(const ColumnScores& columns, const std::vector<bool>& may_move, int64_t n, int64_t m)
      : columns_(columns), may_move_(may_move), n_(n), m_(static_cast<size_t>(m)), rows_(static_cast<int64_t>(columns[0].size())), order_(columns.size()) {
    std::iota(order_.begin(), order_.end(), 0);
    for (size_t g = 0; g < groups(); ++g) kept_.push_back(keep(group(g), n_, rows_));
  }

  std::vector<int64_t> run() {
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      bool any = false;
      for (size_t a = 0; a < groups(); ++a)
        for (size_t b = a + 1; b < groups(); ++b) any |= swap_best(a, b);
      if (!any) break;
    }
    return order_;
  }
  double kept() const { return std::accumulate(kept_.begin(), kept_.end(), 0.0); }

 private:
  size_t groups() const { return order_.size() / m_; }
  const float* column(size_t place) const { return columns_[static_cast<size_t>(order_[place])].data(); }
  std::vector<const float*> group(size_t g) const {
    std::vector<const float*> out;
    for (size_t i = 0; i < m_; ++i) out.push_back(column(g * m_ + i));
    return out;
  }

  bool swap_best(size_t a, size_t b) {
    std::vector<const float*> in_a = group(a), in_b = group(b);
    double best = 1e-6 * (kept_[a] + kept_[b]), best_a = 0, best_b = 0;
    size_t from = 0, to = 0;
    bool found = false;
    for (size_t i = 0; i < m_; ++i)
      for (size_t j = 0; j < m_; ++j) {
        if (!may_move_[a * m_ + i] || !may_move_[b * m_ + j]) continue;
        std::swap(in_a[i], in_b[j]);
        const double now_a = keep(in_a, n_, rows_), now_b = keep(in_b, n_, rows_), gain = now_a + now_b - kept_[a] - kept_[b];
        std::swap(in_a[i], in_b[j]);
        if (gain > best) best = gain, best_a = now_a, best_b = now_b, from = i, to = j, found = true;
      }
    if (!found) return false;
    std::swap(order_[a * m_ + from], order_[b * m_ + to]);
    kept_[a] = best_a, kept_[b] = best_b;
    return true;
  }

  const ColumnScores& columns_;
  const std::vector<bool>& may_move_;
  int64_t n_;
  size_t m_;
  int64_t rows_;
  std::vector<int64_t> order_;
  std::vector<double> kept_;
};

/// What an order is judged by: the rows of a layer's weights, or some of them that lie evenly.
class ScoreRows {
 public:
  ScoreRows(int64_t columns, int64_t all_rows, int64_t m) {
    const int64_t groups = columns / m, pairs = std::max<int64_t>(1, groups * (groups - 1) / 2);
    step_ = std::max<int64_t>(1, all_rows * pairs * m * m / kBudget);
    scores_.resize(static_cast<size_t>(columns));
  }
  void add(const Layer& layer, const std::vector<float>& w) {
    for (int64_t o = 0; o < layer.out; ++o)
      for (int64_t t = 0; t < layer.taps; ++t)
        if (row_++ % step_ == 0)
          for (int64_t i = 0; i < layer.in; ++i) scores_[static_cast<size_t>(i)].push_back(std::fabs(w[static_cast<size_t>((o * layer.in + i) * layer.taps + t)]));
  }
  ColumnScores finish() {
    for (auto& s : scores_) s.resize((s.size() + kLanes - 1) / kLanes * kLanes);
    return std::move(scores_);
  }

 private:
  int64_t step_ = 1, row_ = 0;
  ColumnScores scores_;
};

}  // namespace

std::vector<int64_t> order_for_pattern(const ColumnScores& columns, const std::vector<bool>& may_move, int64_t n, int64_t m) { return Search(columns, may_move, n, m).run(); }

double kept_by_pattern(const ColumnScores& columns, const std::vector<int64_t>& order, int64_t n, int64_t m) {
  ColumnScores moved;
  for (int64_t i : order) moved.push_back(columns[static_cast<size_t>(i)]);
  return Search(moved, {}, n, m).kept();
}

std::vector<std::vector<int32_t>> like_classes(const Dimensions& d) {
  // By class: each axis that it lies on, with the number of its positions there; -1 where they are neither one nor a run.
  std::map<int32_t, std::vector<int64_t>> places;
  int64_t axis = 0;
  const auto note = [&](const Positions& atoms) {
    std::map<int32_t, std::array<int64_t, 3>> seen;  // first, last, count
    for (size_t i = 0; i < atoms.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      auto [it, added] = seen.try_emplace(d.find(atoms[i]), std::array<int64_t, 3>{at, at, 0});
      it->second[1] = at;
      ++it->second[2];
    }
    for (const auto& [c, s] : seen) {
      places[c].push_back(axis);
      places[c].push_back(s[1] - s[0] + 1 == s[2] ? s[2] : -1);
    }
    ++axis;
  };
  for (const auto& [at, atoms] : d.axes()) note(atoms);
  for (const AxisUse& u : d.uses()) note(u.atoms);
  std::map<std::vector<int64_t>, std::vector<int32_t>> alike;
  for (const auto& [c, signature] : places)
    if (!d.locked(c) && !d.is_head(c) && std::find(signature.begin(), signature.end(), -1) == signature.end()) alike[signature].push_back(c);
  std::vector<std::vector<int32_t>> out;
  for (auto& [signature, classes] : alike)
    if (classes.size() > 1) out.push_back(std::move(classes));
  return out;
}

Permuted permute_for_pattern(GraphEdit& edit, const Dimensions& d, int64_t n, int64_t m) {
  const Graph& graph = edit.graph();
  std::map<int32_t, size_t> list_of;
  const auto lists = like_classes(d);
  for (size_t i = 0; i < lists.size(); ++i)
    for (const int32_t c : lists[i]) list_of[c] = i;
  std::vector<int32_t> moved(static_cast<size_t>(d.atoms()));
  std::iota(moved.begin(), moved.end(), 0);
  Permuted result;
  double all = 0;
  const ChannelGroups groups(d);
  for (const ChannelGroup& g : groups.groups()) {
    // The first layer that reads each of them once says how they lie; those where they lie likewise count too.
    std::map<size_t, std::vector<size_t>> by_list;  // places in g.classes
    for (size_t i = 0; i < g.classes.size(); ++i)
      if (const auto it = list_of.find(g.classes[i]); it != list_of.end()) by_list[it->second].push_back(i);
    const std::vector<GroupReader> readers = readers_of(d, g);
    for (const auto& [list, members] : by_list) {
      std::vector<const GroupReader*> same;
      for (const GroupReader& r : readers) {
        const bool single = r.layer.groups == 1 && !r.layer.transposed && r.layer.in >= 2 * m && std::all_of(members.begin(), members.end(), [&](size_t i) { return r.columns[i].size() == 1; });
        if (!single || (!same.empty() && (r.layer.in != same[0]->layer.in || !std::all_of(members.begin(), members.end(), [&](size_t i) { return r.columns[i] == same[0]->columns[i]; })))) continue;
        same.push_back(&r);
      }
      if (same.empty()) continue;
      const int64_t columns = same[0]->layer.in;
      int64_t rows = 0;
      for (const GroupReader* r : same) rows += r->layer.out * r->layer.taps;
      ScoreRows scores(columns, rows, m);
      for (const GroupReader* r : same) scores.add(r->layer, read_weights(r->layer, *graph.constant(r->layer.weights)));
      const ColumnScores table = scores.finish();
      std::vector<bool> may_move(static_cast<size_t>(columns), false);
      std::map<int64_t, int32_t> class_at;
      for (size_t i : members) may_move[static_cast<size_t>(same[0]->columns[i][0])] = true, class_at[same[0]->columns[i][0]] = g.classes[i];
      std::vector<int64_t> before(static_cast<size_t>(columns));
      std::iota(before.begin(), before.end(), 0);
      const std::vector<int64_t> order = order_for_pattern(table, may_move, n, m);
      const double was = kept_by_pattern(table, before, n, m), now = kept_by_pattern(table, order, n, m);
      if (now <= was) continue;
      for (const auto& column : table)
        for (const float s : column) all += static_cast<double>(s);
      result.before += was, result.after += now, ++result.groups;
      for (int64_t p = 0; p < columns; ++p)
        if (order[static_cast<size_t>(p)] != p) moved[static_cast<size_t>(class_at.at(order[static_cast<size_t>(p)]))] = class_at.at(p), ++result.channels;
    }
  }
  if (result.channels == 0) return result;
  result.before /= all, result.after /= all;
  permute_channels(edit, d, moved);
  return result;
}

}  // namespace infopt
