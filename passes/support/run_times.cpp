#include "passes/support/run_times.h"

#include <algorithm>
#include <chrono>

#include "lib/runtime/session.h"
#include "passes/support/layers.h"

namespace infopt {
namespace {

constexpr int kWarm = 3, kLeastRuns = 5, kMostRuns = 100;  // it compiles and folds in the first
constexpr double kSeconds = 1;

double seconds_since(std::chrono::steady_clock::time_point start) { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }

bool multiplies(const Graph& graph, NodeId id) {
  const Node& n = graph.node(id);
  return layer_of(graph, id) || n.is("MatMul") || n.is("Gemm");
}

std::vector<double> so_far(const Session& session, const Graph& graph) {
  std::vector<double> out(graph.node_capacity(), 0);
  for (const auto& t : session.profile()) {
    NodeId id = t.node;
    if (!multiplies(graph, id))
      for (NodeId c : t.covers)
        if (multiplies(graph, c)) id = c;
    out[static_cast<size_t>(id)] += t.milliseconds;
  }
  return out;
}

}  // namespace

std::vector<double> node_times(const Graph& graph, const Sample& sample) {
  const Session session(graph, {.profile = true});
  for (int i = 0; i < kWarm; ++i) session.run(sample.inputs);
  std::vector<double> least, before = so_far(session, graph);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kMostRuns && (i < kLeastRuns || seconds_since(start) < kSeconds); ++i) {
    session.run(sample.inputs);
    const std::vector<double> now = so_far(session, graph);
    if (least.empty()) least.assign(now.size(), 1e30);
    for (size_t n = 0; n < now.size(); ++n) least[n] = std::min(least[n], now[n] - before[n]);
    before = now;
  }
  return least;
}

std::pair<double, double> run_times(const Graph& a, const Graph& b, const Sample& sample) {
  const Session one(a), two(b);
  double least[2] = {1e30, 1e30};
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kMostRuns && (i < kWarm + kLeastRuns || seconds_since(start) < 2 * kSeconds); ++i)
    for (const Session* s : {&one, &two}) {
      const auto begin = std::chrono::steady_clock::now();
      s->run(sample.inputs);
      double& mine = least[s == &two];
      if (i >= kWarm) mine = std::min(mine, 1000 * seconds_since(begin));
    }
  return {least[0], least[1]};
}

}  // namespace infopt
