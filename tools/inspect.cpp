#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/ir/type_text.h"
#include "lib/onnx/import.h"
#include "lib/ops/op.h"
#include "lib/report/format.h"
#include "lib/runtime/session.h"
#include "passes/support/layers.h"
#include "recipes/measure.h"
#include "tools/bench_inputs.h"
#include "tools/command.h"

namespace infopt {
namespace {

/// What is printed, in either form.
struct Summary {
  ModelFile file;
  std::map<std::string, int64_t> ops;
  std::map<std::string, std::pair<int64_t, int64_t>> constants;  ///< count and bytes, by element type
  std::vector<std::string> without_kernel;
  size_t layers = 0;
};

Summary summarize(const std::string& path, const Model& model) {
  const Graph& g = *model.graph;
  Summary s;
  s.file = describe_file(path, model);
  for (NodeId id : g.order()) {
    const Node& n = g.node(id);
    const std::string op = (n.domain.empty() ? "" : n.domain + ".") + n.op;
    if (++s.ops[op] == 1 && !find_op(n.domain, n.op, g.opset(n.domain))) s.without_kernel.push_back(op);
  }
  for (size_t v = 0; v < g.value_capacity(); ++v)
    if (g.value_alive(static_cast<ValueId>(v)) && g.value(static_cast<ValueId>(v)).constant.defined()) {
      const Tensor& t = g.value(static_cast<ValueId>(v)).constant;
      auto& entry = s.constants[std::string(name_of(t.dtype()))];
      entry.first += 1;
      entry.second += static_cast<int64_t>(t.bytes());
    }
  std::sort(s.without_kernel.begin(), s.without_kernel.end());
  s.layers = find_layers(g).size();
  return s;
}

void print_text(const Model& model, const Summary& s) {
  const Graph& g = *model.graph;
  std::printf("%s: %.2f MB, IR version %lld\n", s.file.path.c_str(), static_cast<double>(s.file.bytes) / 1e6, static_cast<long long>(model.ir_version));
  for (const auto& [domain, version] : g.opsets) std::printf("  opset %lld of %s\n", static_cast<long long>(version), domain.empty() ? "ONNX" : domain.c_str());
  for (ValueId id : g.inputs()) std::printf("  input  %s: %s\n", g.value(id).name.c_str(), to_string(g.value(id).type).c_str());
  for (ValueId id : g.outputs()) std::printf("  output %s: %s\n", g.value(id).name.c_str(), to_string(g.value(id).type).c_str());
  std::printf("  %zu nodes\n", g.order().size());
  for (const auto& [op, count] : s.ops) {
    const bool known = !std::binary_search(s.without_kernel.begin(), s.without_kernel.end(), op);
    std::printf("    %6lld %s%s\n", static_cast<long long>(count), op.c_str(), known ? "" : " (no kernel of its own)");
  }
  for (const auto& [dtype, entry] : s.constants) std::printf("  %lld constants of %s, %.3f MB\n", static_cast<long long>(entry.first), dtype.c_str(), static_cast<double>(entry.second) / 1e6);
  std::printf("  %zu layers with constant weights\n", s.layers);
}

using Json = nlohmann::ordered_json;

/// Dimensions are numbers, symbols, or null where nothing is known.
Json value_json(const Value& v) {
  Json out{{"name", format::utf8(v.name)}};
  if (!v.type.opaque.empty() || v.type.dtype == DType::Undefined) return out;
  out["type"] = name_of(v.type.dtype);
  if (!v.type.has_shape) return out;
  out["shape"] = Json::array();
  for (const Dim& d : v.type.shape) out["shape"].push_back(d.size >= 0 ? Json(d.size) : d.symbol.empty() ? Json() : Json(format::utf8(d.symbol)));
  return out;
}

void print_json(const Model& model, const Summary& s) {
  const Graph& g = *model.graph;
  Json out{{"path", format::utf8(s.file.path)}, {"bytes", s.file.bytes}, {"ir_version", model.ir_version}, {"opsets", Json::object()}, {"inputs", Json::array()}, {"outputs", Json::array()}};
  for (const auto& [domain, version] : g.opsets) out["opsets"][format::utf8(domain)] = version;
  for (ValueId id : g.inputs()) out["inputs"].push_back(value_json(g.value(id)));
  for (ValueId id : g.outputs()) out["outputs"].push_back(value_json(g.value(id)));
  out["nodes"] = g.order().size();
  out["operators"] = Json::object();
  for (const auto& [op, count] : s.ops) out["operators"][format::utf8(op)] = count;
  out["without_kernel"] = Json::array();
  for (const std::string& op : s.without_kernel) out["without_kernel"].push_back(format::utf8(op));
  out["constants"] = Json::object();
  for (const auto& [dtype, entry] : s.constants) out["constants"][dtype] = {{"count", entry.first}, {"bytes", entry.second}};
  out["layers"] = s.layers;
  std::puts(out.dump(2).c_str());
}

/// The operator of a step with those that it swallowed, in the graph's order.
std::string joined_ops(const Graph& g, const Session::PlanLine& line) {
  std::vector<NodeId> nodes = line.covers;
  nodes.push_back(line.node);
  std::vector<int64_t> position(g.node_capacity());
  for (size_t i = 0; i < g.order().size(); ++i) position[static_cast<size_t>(g.order()[i])] = static_cast<int64_t>(i);
  std::sort(nodes.begin(), nodes.end(), [&](NodeId a, NodeId b) { return position[static_cast<size_t>(a)] < position[static_cast<size_t>(b)]; });
  std::string text;
  for (NodeId id : nodes) text += (text.empty() ? "" : "+") + g.node(id).op;
  return text;
}

/// Where a step runs, in a word for JSON.
const char* place_of(const Session::PlanLine& line) {
  return line.place == Session::PlanLine::OnDevice ? "device" : line.place == Session::PlanLine::Shapes ? "host" : "cpu";
}

/// The plan; where kernels choose by time, after a run of made-up inputs, if those can be made up.
std::vector<Session::PlanLine> plan_of(const Model& model, const std::shared_ptr<const Device>& device) {
  const Session session(*model.graph, {.device = device});
  const auto lines = session.plan();
  if (std::none_of(lines.begin(), lines.end(), [](const auto& line) { return line.kernel.find(kTimedInFirstRun) != std::string::npos; })) return lines;
  try {
    const BenchInputs inputs(model, {});
    session.run(inputs.make(std::max<int64_t>(1, inputs.fixed_batch())));
  } catch (const Error&) {
    return lines;  // that it will be timed is all that can be said
  }
  return session.plan();
}

void print_plan(const Model& model, bool json, const std::shared_ptr<const Device>& device) {
  const Graph& g = *model.graph;
  const auto lines = plan_of(model, device);
  if (json) {
    Json out = Json::array();
    for (const auto& line : lines) {
      Json covers = Json::array();
      for (NodeId id : line.covers) covers.push_back(format::utf8(g.label(id)));
      out.push_back({{"node", format::utf8(g.label(line.node))}, {"operators", joined_ops(g, line)}, {"covers", covers}, {"kernel", line.kernel}});
      if (device) out.back()["place"] = place_of(line);
      if (!line.refusal.empty()) out.back()["refused"] = line.refusal;
    }
    std::puts(Json{{"device", format::utf8(device_text(device))}, {"steps", out}}.dump(2).c_str());
    return;
  }
  size_t covered = 0;
  for (const auto& line : lines) covered += line.covers.size();
  std::printf("%zu nodes: %zu steps that compute %zu of them, the rest once, when the plan is made, or never\n", g.order().size(), lines.size(), lines.size() + covered);
  for (size_t i = 0; i < lines.size(); ++i) {
    const auto& line = lines[i];
    std::printf("%4zu  %s\n      %s: %s\n", i, g.label(line.node).c_str(), joined_ops(g, line).c_str(), line.kernel.empty() ? "a kernel of one operator" : line.kernel.c_str());
    if (device && line.place != Session::PlanLine::OnDevice) std::printf("      %s\n", line.place == Session::PlanLine::Shapes ? "by the host: arithmetic on shapes" : line.refusal.c_str());
    else if (!line.refusal.empty()) std::printf("      no faster kernel: %s\n", line.refusal.c_str());
  }
}

}  // namespace

void add_inspect(CLI::App& app, Context&) {
  auto* command = app.add_subcommand("inspect", "Say what a model holds");
  const auto path = std::make_shared<std::string>();
  command->add_option("model", *path, "the ONNX model")->required()->type_name("MODEL.onnx");
  const auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "print it as JSON");
  const auto plan = std::make_shared<bool>(false);
  command->add_flag("--plan", *plan, "say which kernels infopt's runtime chooses, and why not faster ones");
  const auto choice = std::make_shared<DeviceChoice>();
  add_device_options(*command, *choice);
  command->callback([path, json, plan, choice] {
    const auto device = open_device(*choice);
    const Model model = read_model(*path);
    if (*plan) return print_plan(model, *json, device);
    const Summary summary = summarize(*path, model);
    *json ? print_json(model, summary) : print_text(model, summary);
  });
}

}  // namespace infopt
