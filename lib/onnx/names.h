// The names under which a graph's values are written.
#pragma once
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "lib/ir/graph.h"

namespace infopt {

/// Values keep their names. One that has none, or whose name is taken (in its graph, or by a value of a graph around it
/// that a body can see), gets "<Operator>_<n>", by position alone. Made for one state of the graphs, which must not change.
class ValueNames {
 public:
  explicit ValueNames(const Graph& root);
  const std::string& of(const Graph& graph, ValueId id) const { return names_.at(&graph)[static_cast<size_t>(id)]; }
  /// A name that nothing has yet.
  std::string fresh(const std::string& stem);

 private:
  void collect(const Graph& graph);
  void assign(const Graph& graph, const Graph* parent, std::unordered_set<std::string>& visible);

  std::unordered_map<const Graph*, std::vector<std::string>> names_;
  std::unordered_set<std::string> used_;
  std::unordered_map<std::string, int64_t> next_;
};

}  // namespace infopt
