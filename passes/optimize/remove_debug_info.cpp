// remove_debug_info
//
// before     nodes and values with the exporter's stack traces, scopes and traced graphs (metadata_props), and documentation strings
// after      nodes, initializers and inner values without either; the graph without its own metadata, which describes what was exported
// conditions The model's metadata and documentation stay, the graph's documentation, and all that its inputs and outputs have.
// formula    –
#include "passes/pass.h"
#include "passes/support/patterns.h"

namespace infopt {
namespace {

using Metadata = std::vector<std::pair<std::string, std::string>>;

/// Empties both; the bytes that they had.
size_t clear(std::string& doc, Metadata& metadata) {
  size_t bytes = doc.size();
  for (const auto& [key, value] : metadata) bytes += key.size() + value.size();
  doc.clear();
  metadata.clear();
  return bytes;
}

size_t strip(GraphEdit& edit) {
  std::string none;
  size_t bytes = clear(none, edit->metadata);
  for (NodeId id : edit.graph().order()) bytes += clear(edit.node_for_import(id).doc, edit.node_for_import(id).metadata);
  for (size_t i = 0; i < edit.graph().value_capacity(); ++i) {
    const auto id = static_cast<ValueId>(i);
    if (!edit.graph().value_alive(id) || edit.graph().is_output(id)) continue;
    Value& v = edit.value_for_import(id);
    if (!v.graph_input) bytes += clear(v.doc, v.metadata);
  }
  return bytes;
}

void run(GraphEdit& edit, PassContext&, const Options&) {
  size_t bytes = 0;
  each_graph(edit, [&](GraphEdit& inner) { bytes += strip(inner); });
  if (bytes > 0) edit.note(std::to_string(bytes) + " bytes of metadata and documentation");
}

}  // namespace

PassDef pass_remove_debug_info() {
  return {"remove_debug_info", "removes exporters' stack traces and scopes from nodes and inner values", Contract::Exact, {}, false, 0, run};
}

}  // namespace infopt
