#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/report/format.h"
#include "lib/report/render.h"

namespace infopt {
namespace {

using Json = nlohmann::ordered_json;

// A number as JSON can hold it.
Json figure(double v) {
  if (std::isnan(v)) return "NaN";
  if (std::isinf(v)) return v > 0 ? "Infinity" : "-Infinity";
  return v;
}

void put(Json& out, const char* key, const std::optional<double>& v) {
  if (v) out[key] = figure(*v);
}
void put(Json& out, const char* key, const std::string& v) {
  if (!v.empty()) out[key] = format::utf8(v);
}

template <class T, class F>
Json list(const std::vector<T>& values, F to_json) {
  Json out = Json::array();
  for (const T& v : values) out.push_back(to_json(v));
  return out;
}

Json texts(const std::vector<std::string>& values) { return list(values, [](const std::string& s) { return Json(format::utf8(s)); }); }

Json model_json(const ModelFile& m) {
  Json out{{"path", format::utf8(m.path)}};
  put(out, "hash", m.hash);
  out["bytes"] = m.bytes;
  out["opset"] = m.opset;
  return out;
}

Json calibration_json(const CalibrationReport& c) {
  Json out{{"method", format::utf8(c.method)}};
  put(out, "percentile", c.percentile);
  out["source"] = format::utf8(c.source);
  out["samples"] = c.samples;
  put(out, "key", c.key);
  out["reused"] = c.reused;
  return out;
}

Json pass_json(const PassReport& p) {
  Json options = Json::object();
  for (const auto& [name, value] : p.options) options[format::utf8(name)] = format::utf8(value);
  Json out{{"name", p.name}, {"summary", format::utf8(p.summary)}, {"contract", p.contract}, {"options", std::move(options)}};
  out["nodes_before"] = p.nodes_before;
  out["nodes_after"] = p.nodes_after;
  out["edits"] = {{"nodes_added", p.edits.nodes_added},
                  {"nodes_removed", p.edits.nodes_removed},
                  {"constants_added", p.edits.constants_added},
                  {"values_replaced", p.edits.values_replaced},
                  {"attributes_changed", p.edits.attributes_changed}};
  out["notes"] = texts(p.edits.notes);
  if (p.check) {
    out["check"] = {{"ok", p.check->ok}, {"max_error", figure(p.check->max_error)}, {"samples", p.check->samples}};
    put(out["check"], "message", p.check->message);
  }
  return out;
}

Json layer_json(const LayerReport& l) {
  Json out{{"node", format::utf8(l.node)}, {"op", format::utf8(l.op)}, {"form", name_of(l.form)}};
  put(out, "reason", l.reason);
  put(out, "weights", l.weights);
  put(out, "algorithm", l.algorithm);
  put(out, "cost", l.cost);
  out["macs"] = l.macs;
  out["weight_elements"] = l.weight_elements;
  put(out, "weight_sqnr_db", l.weight_sqnr_db);
  put(out, "estimated_sqnr_db", l.estimated_sqnr_db);
  put(out, "local_sqnr_db", l.local_sqnr_db);
  put(out, "accumulated_sqnr_db", l.accumulated_sqnr_db);
  return out;
}

Json pruned_json(const PrunedLayer& p) {
  Json out{{"node", format::utf8(p.node)}, {"op", format::utf8(p.op)}};
  put(out, "pattern", p.pattern);
  put(out, "algorithm", p.algorithm);
  put(out, "reason", p.reason);
  out["weights_before"] = p.weights_before;
  out["weights_after"] = p.weights_after;
  out["zeros"] = p.zeros;
  out["removed"] = p.removed();
  put(out, "shape_before", p.shape_before);
  put(out, "shape_after", p.shape_after);
  put(out, "output_sqnr_db", p.output_sqnr_db);
  return out;
}

Json cost_json(const Report& report) {
  Json out = Json::object();
  const auto put_cost = [&](const char* key, const std::optional<ModelCost>& c) {
    if (c) out[key] = {{"flops", 2 * c->macs}, {"macs", c->macs}, {"parameters", c->parameters}};
  };
  put_cost("original", report.original_cost);
  put_cost("optimized", report.optimized_cost);
  return out;
}

Json share_json(const MacShare& s) {
  return {{"form", name_of(s.form)}, {"share", s.share}, {"macs", s.macs}, {"layers", s.layers}, {"weight_elements", s.weight_elements}};
}

Json output_json(const OutputReport& o) {
  return {{"name", format::utf8(o.name)},
          {"sqnr_db", figure(o.sqnr_db)},
          {"cosine", figure(o.cosine)},
          {"max_abs_error", figure(o.max_abs_error)}};
}

Json metric_json(const Metric& m) {
  return {{"name", format::utf8(m.name)},
          {"original", figure(m.original)},
          {"optimized", figure(m.optimized)},
          {"drop", figure(m.drop())},
          {"higher_is_better", m.higher_is_better}};
}

Json gate_json(const GateResult& g) {
  Json out{{"name", g.name}, {"limit", figure(g.limit)}};
  put(out, "value", g.value);
  out["passed"] = g.passed;
  out["message"] = format::utf8(g.message);
  return out;
}

Json latency_json(const Latency& l) {
  return {{"median_ms", l.median_ms}, {"p90_ms", l.p90_ms}, {"p99_ms", l.p99_ms}, {"first_run_ms", l.first_run_ms},
          {"runs", l.runs},           {"threads", l.threads}, {"batch", l.batch}};
}

Json attempt_json(const Attempt& a) {
  Json out{{"name", format::utf8(a.name)}};
  put(out, "changed", a.changed);
  put(out, "failure", a.failure);
  put(out, "sqnr_db", a.sqnr_db);
  put(out, "metric_drop", a.metric_drop);
  put(out, "size_ratio", a.size_ratio);
  if (a.failure.empty()) out["gates_not_met"] = texts(a.missed);
  return out;
}

Json search_json(const SearchReport& s) {
  return {{"attempts", list(s.attempts, attempt_json)}, {"chosen", s.chosen}, {"ended", format::utf8(s.ended)}, {"by_measurement", s.by_measurement}};
}

Json measured_json(const Report& report) {
  const Measured& m = report.measured;
  Json out{{"stages", list(m.stages, [](const StageTime& s) { return Json{{"name", s.name}, {"seconds", s.seconds}}; })},
           {"passes", list(report.passes, [](const PassReport& p) { return Json{{"name", p.name}, {"seconds", p.seconds}}; })}};
  Json latency = Json::object(), memory = Json::object();
  if (m.original_latency) latency["original"] = latency_json(*m.original_latency);
  if (m.optimized_latency) latency["optimized"] = latency_json(*m.optimized_latency);
  put(latency, "ratio", latency_ratio(report));
  put(latency, "speedup", speedup(report));
  if (!latency.empty()) out["latency"] = std::move(latency);
  if (report.search) {
    out["attempts"] = list(report.search->attempts, [](const Attempt& a) {
      Json j{{"seconds", a.seconds}};
      put(j, "latency_ratio", a.latency_ratio);
      return j;
    });
  }
  if (m.process_peak_memory) memory["process"] = *m.process_peak_memory;
  if (m.original_peak_memory) memory["original"] = *m.original_peak_memory;
  if (m.optimized_peak_memory) memory["optimized"] = *m.optimized_peak_memory;
  if (!memory.empty()) out["peak_memory_bytes"] = std::move(memory);
  return out;
}

Json comparison_json(const Report& report) {
  Json out = Json::object();
  put(out, "data", report.compared_data);
  out["samples"] = report.compared_samples;
  out["outputs"] = list(report.outputs, output_json);
  return out;
}

}  // namespace

std::string render_json(const Report& report) {
  Json out{{"schema_version", kReportSchemaVersion}, {"verdict", format::verdict(report)}, {"infopt_version", report.infopt_version}};
  put(out, "command", report.command);
  out["command_line"] = texts(report.command_line);
  put(out, "target", report.target);
  put(out, "device", report.device);
  if (report.original) out["original"] = model_json(*report.original);
  if (report.optimized) out["optimized"] = model_json(*report.optimized);
  put(out, "size_ratio", size_ratio(report));
  put(out, "recipe", report.recipe);
  if (report.calibration) out["calibration"] = calibration_json(*report.calibration);
  out["gates"] = list(report.gates, gate_json);
  out["metrics"] = list(report.metrics, metric_json);
  if (report.search) out["search"] = search_json(*report.search);
  if (!report.outputs.empty()) out["comparison"] = comparison_json(report);
  out["mac_shares"] = list(mac_shares(report), share_json);
  put(out, "integer_mac_share", integer_mac_share(report));
  out["layers"] = list(report.layers, layer_json);
  if (!report.pruned.empty()) out["pruned"] = list(report.pruned, pruned_json);
  put(out, "removed_share", removed_share(report));
  if (report.original_cost || report.optimized_cost) out["cost"] = cost_json(report);
  out["passes"] = list(report.passes, pass_json);
  out["unknown_operators"] =
      list(report.unknown_operators, [](const UnknownOperator& u) { return Json{{"op", format::utf8(u.op)}, {"count", u.count}}; });
  out["warnings"] = texts(report.warnings);
  out["measured"] = measured_json(report);
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace infopt
