#include "passes/support/min_cut.h"

#include <gtest/gtest.h>

#include <bit>
#include <random>
#include <tuple>

namespace infopt {
namespace {

/// A labelling problem, and what a labelling costs by its definition. Bit i of a labelling: thing i is B.
struct Problem {
  std::vector<std::pair<double, double>> labels;
  std::vector<std::tuple<size_t, size_t, double>> conflicts;

  double cost(unsigned labelling) const {
    auto is_b = [&](size_t i) { return (labelling >> i & 1) != 0; };
    double sum = 0;
    for (size_t i = 0; i < labels.size(); ++i) sum += is_b(i) ? labels[i].second : labels[i].first;
    for (const auto& [a, b, c] : conflicts)
      if (!is_b(a) && is_b(b)) sum += c;
    return sum;
  }

  unsigned solve() const {
    MinCut cut;
    for (const auto& [a, b] : labels) {
      const size_t id = cut.add();
      cut.label_cost(id, a, b);
    }
    for (const auto& [a, b, c] : conflicts) cut.conflict_cost(a, b, c);
    const std::vector<bool> labelling = cut.solve();
    EXPECT_EQ(labelling.size(), labels.size());
    unsigned bits = 0;
    for (size_t i = 0; i < labelling.size(); ++i) bits |= labelling[i] ? 1u << i : 0u;
    return bits;
  }
};

/// Costs are whole numbers from 0 to `most`: the smaller, the more ties.
Problem random_problem(unsigned seed, int most) {
  std::mt19937 random(seed);
  auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  Problem p;
  const int things = 1 + below(9);
  for (int i = 0; i < things; ++i) p.labels.emplace_back(below(most + 1), below(most + 1));
  for (int i = below(3 * things + 1); i > 0 && things > 1; --i) {
    const int a = below(things), b = below(things);
    if (a != b) p.conflicts.emplace_back(static_cast<size_t>(a), static_cast<size_t>(b), below(10) == 0 ? 1e15 : below(most + 1));
  }
  return p;
}

TEST(MinCut, FindsTheCheapestOfAllLabellings) {
  for (unsigned seed = 0; seed < 400; ++seed) {
    const Problem p = random_problem(seed, 50);
    double least = p.cost(0);
    for (unsigned l = 1; l < 1u << p.labels.size(); ++l) least = std::min(least, p.cost(l));
    EXPECT_DOUBLE_EQ(p.cost(p.solve()), least) << "seed " << seed;
  }
}

TEST(MinCut, OfEquallyCheapLabellingsTakesTheOneWithTheFewestBs) {
  for (unsigned seed = 0; seed < 400; ++seed) {
    const Problem p = random_problem(seed, 2);
    double least = p.cost(0);
    unsigned best = 0;
    for (unsigned l = 1; l < 1u << p.labels.size(); ++l) {
      const double cost = p.cost(l);
      if (cost < least || (cost == least && std::popcount(l) < std::popcount(best))) best = l;
      least = std::min(least, cost);
    }
    EXPECT_EQ(p.solve(), best) << "seed " << seed;
  }
}

TEST(MinCut, CrossingOnceIsDearerThanStaying) {
  Problem chain{{{0, 10}, {4, 0}, {4, 0}, {0, 10}}, {}};
  for (size_t i = 0; i < 3; ++i) chain.conflicts.insert(chain.conflicts.end(), {{i, i + 1, 5.0}, {i + 1, i, 5.0}});
  EXPECT_EQ(chain.solve(), 0u);  // 8 for two As that would rather be Bs, against 10 for two crossings
  chain.labels[1].first = 7;
  EXPECT_EQ(chain.solve(), 0b0110u);
}

TEST(MinCut, LongChainsNeedNoDeepStack) {
  constexpr size_t kLength = 200000;
  MinCut cut;
  for (size_t i = 0; i < kLength; ++i) cut.add();
  for (size_t i = 0; i + 1 < kLength; ++i) cut.conflict_cost(i, i + 1, 3), cut.conflict_cost(i + 1, i, 3);
  cut.label_cost(0, 0, 2);
  cut.label_cost(kLength - 1, 1, 0);
  const std::vector<bool> labels = cut.solve();
  EXPECT_EQ(std::count(labels.begin(), labels.end(), true), 0);
}

}  // namespace
}  // namespace infopt
