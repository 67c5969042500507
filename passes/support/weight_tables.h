// Tables that Gather looks up rows of, as int8 with a scale for each row.
#pragma once
#include <map>
#include <vector>

#include "lib/ir/edit.h"
#include "passes/support/plan_weights.h"

namespace infopt {

struct TablePlan {
  NodeId gather = kNone;
  ValueId table = kNone;
};

/// Lookups along the first axis of constant matrices of floats, as groups and sizes allow; none where the options keep tables in float.
std::vector<TablePlan> plan_tables(const Graph& graph, const PassContext& context, const WeightsOptions& options);

/// Layers whose weights are such a table's rows take its form, int8 per channel, so that both read the same codes. Returns the table of each
/// such layer, by its place in the plan.
std::map<size_t, ValueId> tie_layers(const Graph& graph, const std::vector<TablePlan>& tables, std::vector<WeightsPlan>& plan, std::vector<LayerReport>& reports);

class TablesWriter {
 public:
  explicit TablesWriter(GraphEdit& edit) : edit_(edit) {}
  /// The layer reads the table's codes.
  void write_layer(const Layer& layer, ValueId table, const CodedWeights& codes);
  /// The lookup fetches a row's codes and its scale. Tables that no layer shares are rounded to nearest here.
  void write_lookup(const TablePlan& plan, GridFit fit);

 private:
  struct Written {
    ValueId codes;
    std::vector<float> scales;
  };
  const Written& table(ValueId value, const CodedWeights& codes);
  GraphEdit& edit_;
  std::map<ValueId, Written> written_;
};

}  // namespace infopt
