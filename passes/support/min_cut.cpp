#include "passes/support/min_cut.h"

#include <algorithm>
#include <queue>

namespace infopt {
namespace {
constexpr double kNothing = 1e-6;
}

size_t MinCut::add() {
  out_.emplace_back();
  return vertices_++ - 2;
}

void MinCut::edge(size_t from, size_t to, double capacity) {
  out_[from].push_back(edges_.size());
  edges_.push_back({to, capacity});
  out_[to].push_back(edges_.size());
  edges_.push_back({from, 0});
}

void MinCut::label_cost(size_t node, double cost_a, double cost_b) {
  if (cost_a > 0) edge(node + 2, 1, cost_a);  // cut where the node stays with the source
  if (cost_b > 0) edge(0, node + 2, cost_b);
}

void MinCut::conflict_cost(size_t a, size_t b, double cost) { edge(a + 2, b + 2, cost); }

bool MinCut::level_graph() {
  level_.assign(vertices_, -1);
  level_[0] = 0;
  std::queue<size_t> open;
  open.push(0);
  while (!open.empty()) {
    const size_t v = open.front();
    open.pop();
    for (size_t e : out_[v])
      if (edges_[e].capacity > kNothing && level_[edges_[e].to] < 0) {
        level_[edges_[e].to] = level_[v] + 1;
        open.push(edges_[e].to);
      }
  }
  return level_[1] >= 0;
}

/// An explicit stack: paths are as long as the network is deep.
double MinCut::push(size_t source, double limit) {
  std::vector<size_t> path;
  size_t v = source;
  while (true) {
    if (v == 1) {
      double flow = limit;
      for (size_t e : path) flow = std::min(flow, edges_[e].capacity);
      for (size_t e : path) {
        edges_[e].capacity -= flow;
        edges_[e ^ 1].capacity += flow;
      }
      return flow;
    }
    bool moved = false;
    for (size_t& i = next_[v]; i < out_[v].size(); ++i) {
      const Edge& e = edges_[out_[v][i]];
      if (e.capacity > kNothing && level_[e.to] == level_[v] + 1) {
        path.push_back(out_[v][i]);
        v = e.to;
        moved = true;
        break;
      }
    }
    if (moved) continue;
    level_[v] = -1;  // a dead end
    if (path.empty()) return 0;
    v = edges_[path.back() ^ 1].to;
    path.pop_back();
  }
}

std::vector<bool> MinCut::solve() {
  while (level_graph()) {
    next_.assign(vertices_, 0);
    while (push(0, 1e30) > 0) {
    }
  }
  // What the sink can be reached from is B: with the fewest things.
  std::vector<bool> reaches(vertices_, false);
  reaches[1] = true;
  std::queue<size_t> open;
  open.push(1);
  while (!open.empty()) {
    const size_t v = open.front();
    open.pop();
    for (size_t e : out_[v]) {
      const size_t from = edges_[e].to;
      if (!reaches[from] && edges_[e ^ 1].capacity > kNothing) {
        reaches[from] = true;
        open.push(from);
      }
    }
  }
  return {reaches.begin() + 2, reaches.end()};
}

}  // namespace infopt
