#include "lib/onnx/upgrade.h"

#include "lib/base/error.h"
#include "lib/ir/edit.h"
#include "lib/onnx/adapters.h"
#include "lib/onnx/convert.h"
#include "lib/onnx/infer.h"
#include "onnx/defs/schema.h"

namespace infopt {
namespace {

constexpr int64_t kOldestSource = 7;  // before it, broadcasting and training attributes were others

/// Step by step through the versions in which the node's operator was defined anew.
void adapt_through(GraphEdit& edit, NodeId id, int64_t from, int64_t to) {
  for (int64_t version = from + 1; version <= to; ++version) {
    const auto* schema = onnx::OpSchemaRegistry::Schema(edit.graph().node(id).op, static_cast<int>(version), "");
    if (schema && schema->SinceVersion() == version) adapt_node(edit, id, version);
  }
}

void adapt_graph(Graph& graph, int64_t from, int64_t to) {
  GraphEdit edit(graph);
  for (NodeId id : std::vector<NodeId>(graph.order())) {
    try {
      for (const auto& body : graph.node(id).bodies()) adapt_graph(*body, from, to);
      if (graph.node(id).domain.empty()) adapt_through(edit, id, from, to);
    } catch (const Error& e) {
      throw e.within(graph.label(id) + " (" + graph.node(id).op + ")");
    }
  }
  edit->opsets[""] = to;
  edit.finish();
}

}  // namespace

void upgrade_opset(Model& model, int64_t to) {
  const int64_t from = model.graph->opset();
  if (from == 0 || from >= to) return;
  if (to > kNewestTarget) throw Error(ErrorKind::Defect, "an upgrade to opset " + std::to_string(to) + " was asked for");
  if (from < kOldestSource) {
    Model converted = model;
    convert_whole(converted, kOldestSource);
    upgrade_opset(converted, to);
    model = std::move(converted);
    return;
  }
  infer_types(model);
  auto upgraded = model.graph->clone();
  adapt_graph(*upgraded, from, to);
  model.graph = std::move(upgraded);
}

}  // namespace infopt
