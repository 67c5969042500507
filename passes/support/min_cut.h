// Minimum s-t cut (Dinic 1970) for choosing between two labels for each of many things that cost when neighbours differ.
#pragma once
#include <cstddef>
#include <vector>

namespace infopt {

class MinCut {
 public:
  /// A new thing to label; returns its number.
  size_t add();
  /// What labelling it A or B costs.
  void label_cost(size_t node, double cost_a, double cost_b);
  /// What it costs if `a` is labelled A while `b` is labelled B.
  void conflict_cost(size_t a, size_t b, double cost);
  /// For every thing: whether it is labelled B. Of several cheapest labellings the one with the fewest Bs.
  std::vector<bool> solve();

 private:
  struct Edge { size_t to; double capacity; };
  void edge(size_t from, size_t to, double capacity);
  bool level_graph();
  double push(size_t node, double flow);
  size_t vertices_ = 2;  // 0: source, side A; 1: sink, side B
  std::vector<Edge> edges_;
  std::vector<std::vector<size_t>> out_{2};
  std::vector<int> level_;
  std::vector<size_t> next_;
};

}  // namespace infopt
