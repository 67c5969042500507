#include "lib/bench/trace.h"

#include <nlohmann/json.hpp>
#include <set>

#include "lib/report/format.h"

namespace infopt {
namespace {

using Json = nlohmann::ordered_json;

Json metadata(const char* what, int thread, const std::string& name) {
  return {{"name", what}, {"ph", "M"}, {"pid", 1}, {"tid", thread}, {"args", {{"name", name}}}};
}

}  // namespace

std::string chrome_trace(const Graph& graph, const std::vector<Session::NodeEvent>& events) {
  std::string text = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n" + metadata("process_name", 0, "infopt").dump();
  std::set<int> threads;
  for (const auto& e : events) threads.insert(e.thread);
  for (int t : threads) text += ",\n" + metadata("thread_name", t, "run " + std::to_string(t)).dump();
  for (const auto& e : events) {
    const Node& node = graph.node(e.node);
    const Json event{{"name", format::utf8(graph.label(e.node))},
                     {"cat", format::utf8(node.op)},
                     {"ph", "X"},
                     {"ts", e.start_ms * 1e3},
                     {"dur", (e.end_ms - e.start_ms) * 1e3},
                     {"pid", 1},
                     {"tid", e.thread},
                     {"args", {{"op", format::utf8(node.op)}, {"shape", to_string(e.shape)}}}};
    text += ",\n" + event.dump();
  }
  return text + "\n]}\n";
}

}  // namespace infopt
