#include "passes/support/weight_tables.h"

#include "lib/base/error.h"
#include "passes/support/groups.h"
#include "passes/support/tied.h"

namespace infopt {
namespace {

const WeightFormat kRows{.dtype = DType::I8};

}  // namespace

std::vector<TablePlan> plan_tables(const Graph& graph, const PassContext& context, const WeightsOptions& options) {
  std::vector<TablePlan> plans;
  if (!options.int8_tables) return plans;
  const std::vector<const GroupRule*> groups = assign_groups(graph, context.groups);
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    if (!n.is("Gather") || n.i("axis", 0) != 0 || graph.constant(n.input(1))) continue;
    const Tensor* t = graph.constant(n.input(0));
    if (!t || t->rank() != 2 || (t->dtype() != DType::F32 && t->dtype() != DType::F16 && t->dtype() != DType::BF16) || t->size() < options.min_weights || t->size() == 0) continue;
    const GroupRule* rule = groups[static_cast<size_t>(id)];
    if (rule && ((!rule->weights.empty() && rule->weights != "float8" && weight_type(rule->weights) == DType::Undefined) || rule->form == "float")) continue;
    plans.push_back({id, n.input(0)});
  }
  return plans;
}

std::map<size_t, ValueId> tie_layers(const Graph& graph, const std::vector<TablePlan>& tables, std::vector<WeightsPlan>& plan, std::vector<LayerReport>& reports) {
  std::map<size_t, ValueId> tied;
  for (size_t i = 0; i < plan.size(); ++i)
    for (const TablePlan& t : tables) {
      if (tied.contains(i) || !reads_table(graph, plan[i].layer, t.table)) continue;
      tied[i] = t.table;
      plan[i].format = kRows;
      plan[i].moments = false;
      reports[plan[i].report].weights = describe(kRows);
      reports[plan[i].report].reason = "a table that is looked up in too: stored once";
    }
  return tied;
}

const TablesWriter::Written& TablesWriter::table(ValueId value, const CodedWeights& codes) {
  const auto it = written_.find(value);
  if (it != written_.end()) return it->second;
  Tensor bytes(DType::I8, {codes.grid.out, codes.grid.k});
  for (size_t i = 0; i < codes.codes.size(); ++i) bytes.mutable_data<int8_t>()[i] = static_cast<int8_t>(codes.codes[i]);
  return written_[value] = {edit_.add_constant(std::move(bytes)), codes.grid.scales};
}

void TablesWriter::write_layer(const Layer& layer, ValueId value, const CodedWeights& codes) {
  const Written& t = table(value, codes);
  const DType type = edit_.graph().constant(layer.weights)->dtype();
  ValueId rows = t.codes;
  // Of codes: engines fold it when they load, and find DequantizeLinear right before the product.
  if (layer.out_axis == 1) rows = edit_.add({.op = "Transpose", .attributes = {{"perm", std::vector<int64_t>{1, 0}, {}}}}, {rows});
  const ValueId scale = edit_.add_constant(cast(Tensor::vector(t.scales), type));
  edit_.set_input(layer.node, 1, edit_.add({.op = "DequantizeLinear", .attributes = {{"axis", layer.out_axis, {}}}}, {rows, scale}));
}

void TablesWriter::write_lookup(const TablePlan& plan, GridFit fit) {
  const Node n = edit_.graph().node(plan.gather);
  const Tensor values = *edit_.graph().constant(plan.table);
  if (!written_.contains(plan.table)) {
    const std::vector<float> weights = to_vector<float>(values);
    try {
      table(plan.table, round_to_nearest(weights, fit_grid(weights, values.dim(0), values.dim(1), kRows, fit)));
    } catch (const Error& e) {
      throw e.within(edit_.graph().label(plan.gather));
    }
  }
  const Written& t = written_.at(plan.table);
  const ValueId rows = edit_.add({.op = "Gather", .name = n.name, .attributes = n.attributes}, {t.codes, n.input(1)});
  const ValueId column = edit_.add_constant(cast(Tensor::vector(t.scales).reshaped({values.dim(0), 1}), values.dtype()));
  const ValueId scale = edit_.add({.op = "Gather", .attributes = n.attributes}, {column, n.input(1)});
  const ValueId wide = edit_.add({.op = "Cast", .attributes = {{"to", static_cast<int64_t>(values.dtype()), {}}}}, {rows});
  edit_.replace_uses(n.outputs[0], edit_.add({.op = "Mul"}, {wide, scale}));
  edit_.note(edit_.graph().label(plan.gather) + ": table of " + to_string(values.shape()) + " as int8, a scale for each row");
  edit_.remove_node(plan.gather);
}

}  // namespace infopt
