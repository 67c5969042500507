#include "passes/support/prune_mask.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/base/error.h"

namespace infopt {
namespace {

/// Zeroes `mask` at the `count` places of lowest score.
void drop_lowest(const std::vector<double>& scores, std::vector<int64_t>& places, int64_t count, PruneMask& mask) {
  if (count <= 0) return;
  count = std::min(count, static_cast<int64_t>(places.size()));
  const auto lower = [&](int64_t a, int64_t b) {
    const double x = scores[static_cast<size_t>(a)], y = scores[static_cast<size_t>(b)];
    return x != y ? x < y : a < b;
  };
  if (count < static_cast<int64_t>(places.size())) std::nth_element(places.begin(), places.begin() + count, places.end(), lower);
  for (int64_t i = 0; i < count; ++i) mask[static_cast<size_t>(places[static_cast<size_t>(i)])] = 0;
}

int64_t share_of(double sparsity, int64_t count) { return static_cast<int64_t>(std::floor(sparsity * static_cast<double>(count) + 0.5)); }

void mask_groups(const std::vector<double>& scores, int64_t out, int64_t k, const PrunePattern& p, const std::vector<int64_t>& order, PruneMask& mask) {
  std::vector<int64_t> places;
  for (int64_t o = 0; o < out; ++o)
    for (int64_t from = 0; from < k; from += p.m) {
      places.clear();
      for (int64_t i = from; i < std::min(k, from + p.m); ++i) places.push_back(o * k + order[static_cast<size_t>(i)]);
      drop_lowest(scores, places, static_cast<int64_t>(places.size()) - p.n, mask);
    }
}

void mask_blocks(const std::vector<double>& scores, int64_t out, int64_t k, const PrunePattern& p, double sparsity, const std::vector<int64_t>& order, PruneMask& mask) {
  struct Block { double score; int64_t weights, o, i; };
  std::vector<Block> blocks;
  const auto each = [&](const Block& b, auto f) {
    for (int64_t o = b.o; o < std::min(out, b.o + p.rows); ++o)
      for (int64_t i = b.i; i < std::min(k, b.i + p.columns); ++i) f(static_cast<size_t>(o * k + order[static_cast<size_t>(i)]));
  };
  for (int64_t o = 0; o < out; o += p.rows)
    for (int64_t i = 0; i < k; i += p.columns) {
      Block b{0, 0, o, i};
      each(b, [&](size_t at) { b.score += scores[at], ++b.weights; });
      b.score /= static_cast<double>(b.weights);
      blocks.push_back(b);
    }
  std::stable_sort(blocks.begin(), blocks.end(), [](const Block& a, const Block& b) { return a.score < b.score; });
  int64_t left = share_of(sparsity, out * k);
  for (const Block& b : blocks) {
    if (b.weights > left + b.weights / 2) break;
    each(b, [&](size_t at) { mask[at] = 0; });
    left -= b.weights;
  }
}

}  // namespace

std::string describe(const PrunePattern& p) {
  if (p.kind == PrunePattern::Kind::NM) return std::to_string(p.n) + ":" + std::to_string(p.m);
  if (p.kind == PrunePattern::Kind::Block) return "blocks of " + std::to_string(p.rows) + "x" + std::to_string(p.columns);
  return "unstructured";
}

double sparsity_of(const PrunePattern& p, double wish) {
  return p.kind == PrunePattern::Kind::NM ? 1 - static_cast<double>(p.n) / static_cast<double>(p.m) : wish;
}

std::vector<int64_t> grouped_columns(const Layer& layer) {
  std::vector<int64_t> order;
  for (int64_t t = 0; t < layer.taps; ++t)
    for (int64_t i = 0; i < layer.in; ++i) order.push_back(i * layer.taps + t);
  return order;
}

PruneMask prune_mask(const std::vector<double>& scores, int64_t out, int64_t k, const PrunePattern& pattern, double sparsity, PruneRank rank, const std::vector<int64_t>& order) {
  if (static_cast<int64_t>(scores.size()) != out * k || (!order.empty() && static_cast<int64_t>(order.size()) != k)) throw Error(ErrorKind::Defect, "scores that don't fit their layer");
  for (double s : scores)
    if (!std::isfinite(s)) throw Error(ErrorKind::Malformed, "a weight's score is NaN or infinite");
  std::vector<int64_t> own = order;
  if (own.empty()) own.resize(static_cast<size_t>(k)), std::iota(own.begin(), own.end(), 0);
  PruneMask mask(scores.size(), 1);
  if (pattern.kind == PrunePattern::Kind::NM) mask_groups(scores, out, k, pattern, own, mask);
  if (pattern.kind == PrunePattern::Kind::Block) mask_blocks(scores, out, k, pattern, sparsity, own, mask);
  if (pattern.kind != PrunePattern::Kind::Unstructured) return mask;
  const int64_t count = rank == PruneRank::Row ? k : out * k;
  std::vector<int64_t> places(static_cast<size_t>(count));
  for (int64_t from = 0; from < out * k; from += count) {
    std::iota(places.begin(), places.end(), from);
    drop_lowest(scores, places, share_of(sparsity, count), mask);
  }
  return mask;
}

std::vector<double> prune_scores(const std::vector<float>& weights, int64_t k, const std::vector<double>& norms) {
  std::vector<double> scores(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    scores[i] = std::fabs(static_cast<double>(weights[i]));
    if (!norms.empty()) scores[i] *= norms[i % static_cast<size_t>(k)];
  }
  return scores;
}

void apply_mask(const PruneMask& mask, std::vector<float>& weights) {
  for (size_t i = 0; i < weights.size(); ++i)
    if (!mask[i]) weights[i] = 0;
}

}  // namespace infopt
