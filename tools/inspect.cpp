#include <cstdio>
#include <map>
#include <memory>

#include "lib/onnx/import.h"
#include "lib/ops/op.h"
#include "passes/support/layers.h"
#include "recipes/measure.h"
#include "tools/command.h"

namespace infopt {
namespace {

std::string type_text(const Type& t) {
  if (!t.opaque.empty()) return "not a tensor";
  std::string text(name_of(t.dtype));
  if (!t.has_shape) return text;
  text += "[";
  for (size_t i = 0; i < t.shape.size(); ++i) text += (i ? "," : "") + (t.shape[i].size >= 0 ? std::to_string(t.shape[i].size) : t.shape[i].symbol.empty() ? "?" : t.shape[i].symbol);
  return text + "]";
}

void inspect(const std::string& path) {
  const Model model = read_model(path);
  const Graph& g = *model.graph;
  const ModelFile file = describe_file(path, model);
  std::printf("%s: %.2f MB, IR version %lld\n", path.c_str(), static_cast<double>(file.bytes) / 1e6, static_cast<long long>(model.ir_version));
  for (const auto& [domain, version] : g.opsets) std::printf("  opset %lld of %s\n", static_cast<long long>(version), domain.empty() ? "ONNX" : domain.c_str());
  for (ValueId id : g.inputs()) std::printf("  input  %s: %s\n", g.value(id).name.c_str(), type_text(g.value(id).type).c_str());
  for (ValueId id : g.outputs()) std::printf("  output %s: %s\n", g.value(id).name.c_str(), type_text(g.value(id).type).c_str());
  std::map<std::string, int64_t> ops;
  for (NodeId id : g.order()) {
    const Node& n = g.node(id);
    const bool known = find_op(n.domain, n.op, g.opset(n.domain)) != nullptr;
    ++ops[(n.domain.empty() ? "" : n.domain + ".") + n.op + (known ? "" : " (no kernel of its own)")];
  }
  std::map<std::string, std::pair<int64_t, int64_t>> weights;
  for (size_t v = 0; v < g.value_capacity(); ++v)
    if (g.value_alive(static_cast<ValueId>(v)) && g.value(static_cast<ValueId>(v)).constant.defined()) {
      const Tensor& t = g.value(static_cast<ValueId>(v)).constant;
      auto& entry = weights[std::string(name_of(t.dtype()))];
      entry.first += 1;
      entry.second += static_cast<int64_t>(t.bytes());
    }
  std::printf("  %zu nodes\n", g.order().size());
  for (const auto& [op, count] : ops) std::printf("    %6lld %s\n", static_cast<long long>(count), op.c_str());
  for (const auto& [dtype, entry] : weights) std::printf("  %lld constants of %s, %.3f MB\n", static_cast<long long>(entry.first), dtype.c_str(), static_cast<double>(entry.second) / 1e6);
  std::printf("  %zu layers with constant weights\n", find_layers(g).size());
}

}  // namespace

void add_inspect(CLI::App& app, Context&) {
  auto* command = app.add_subcommand("inspect", "Say what a model holds");
  const auto path = std::make_shared<std::string>();
  command->add_option("model", *path, "the ONNX model")->required()->type_name("MODEL.onnx");
  command->callback([path] { inspect(*path); });
}

}  // namespace infopt
