#include "lib/bench/profile.h"

#include <algorithm>
#include <map>

namespace infopt {
namespace {

/// "int8 convolution, channels last; with Relu, 2 DequantizeLinear"
std::string kernel_of(const Graph& graph, const Session::NodeTime& time) {
  std::map<std::string, int> besides;
  for (NodeId id : time.covers) ++besides[graph.node(id).op];
  std::string text;
  for (const auto& [op, count] : besides) text += (text.empty() ? "with " : ", ") + (count > 1 ? std::to_string(count) + " " : "") + op;
  if (text.empty()) return time.kernel;
  return time.kernel.empty() ? text : time.kernel + "; " + text;
}

}  // namespace

RunProfile make_profile(const Graph& graph, const std::vector<Session::NodeTime>& times, int64_t runs, double seconds) {
  RunProfile profile;
  const double each = 1 / static_cast<double>(std::max<int64_t>(1, runs));
  profile.run_ms = 1e3 * seconds * each;
  std::map<std::string, ProfileRow> operators;
  for (const auto& t : times) {
    if (t.calls == 0) continue;
    const Node& node = graph.node(t.node);
    const std::string op = node.domain.empty() ? node.op : node.domain + "." + node.op;
    profile.nodes.push_back({op, graph.label(t.node), kernel_of(graph, t), t.milliseconds * each, static_cast<double>(t.calls) * each, 0});
    ProfileRow& row = operators.try_emplace(op, ProfileRow{op, "", "", 0, 0, 0}).first->second;
    row.ms += profile.nodes.back().ms;
    row.calls += profile.nodes.back().calls;
    profile.nodes_ms += profile.nodes.back().ms;
  }
  for (auto& [op, row] : operators) profile.operators.push_back(std::move(row));
  for (auto* rows : {&profile.operators, &profile.nodes}) {
    if (profile.nodes_ms > 0)
      for (ProfileRow& r : *rows) r.share = r.ms / profile.nodes_ms;
    std::stable_sort(rows->begin(), rows->end(), [](const ProfileRow& a, const ProfileRow& b) { return a.ms > b.ms; });
  }
  return profile;
}

}  // namespace infopt
