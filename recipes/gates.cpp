#include "recipes/gates.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/error.h"

namespace infopt {
namespace {

constexpr double kMostScatter = 1.05;
constexpr double kBytesPerMb = 1e6;

GateFigure worst_output(const Report& report, std::optional<double> worst, double OutputReport::* field) {
  if (!worst) return {};
  for (const OutputReport& o : report.outputs) {
    double v = o.*field;
    if (v == *worst || (v != v && *worst != *worst)) return {worst, "output '" + o.name + "'"};
  }
  return {worst, {}};
}

GateFigure metric_drop(const Report& report) {
  GateFigure out;
  for (const Metric& m : report.metrics) {
    double drop = m.drop();
    if (out.value && !(drop > *out.value) && drop == drop) continue;
    out = {drop, m.name};
    if (drop != drop) break;
  }
  return out;
}

GateFigure sqnr(const Report& r) { return worst_output(r, worst_sqnr_db(r), &OutputReport::sqnr_db); }
GateFigure cosine(const Report& r) { return worst_output(r, worst_cosine(r), &OutputReport::cosine); }
GateFigure size(const Report& r) { return {size_ratio(r), {}}; }
GateFigure ratio(const Report& r) { return {latency_ratio(r), {}}; }
/// Beside what the original's own times scatter up to; an allowance of kMostScatter at most, however much they do.
GateFigure slowdown(const Report& r) {
  const auto ratio = latency_ratio(r);
  if (!ratio) return {};
  const Latency& original = *r.measured.original_latency;
  return {*ratio / std::clamp(original.p90_ms / original.median_ms, 1.0, kMostScatter), {}};
}
GateFigure faster(const Report& r) { return {speedup(r), {}}; }
GateFigure integer_share(const Report& r) { return {integer_mac_share(r), {}}; }
GateFigure latency(const Report& r) {
  const auto& l = r.measured.optimized_latency;
  return l ? GateFigure{l->median_ms, {}} : GateFigure{};
}
GateFigure memory(const Report& r) {
  const auto& bytes = r.measured.optimized_peak_memory;
  return bytes ? GateFigure{static_cast<double>(*bytes) / kBytesPerMb, {}} : GateFigure{};
}

// What to do where the figure is missing.
std::string advice(GateNeed need) {
  switch (need) {
    case GateNeed::Comparison: return "the models were not compared: pass data with --eval or --calib";
    case GateNeed::Metric: return "no metric was measured: set eval.metric in the recipe and pass labelled data with --eval";
    case GateNeed::Size: return "the sizes of both models are not known: the output must be written, pass -o";
    case GateNeed::Latency: return "no latency was measured: pass data with --eval or --calib, so that both models can be run";
    case GateNeed::Memory: return "no peak memory was measured: pass data with --eval or --calib, so that the model can be run";
    case GateNeed::Layers: return "no layer's MACs are known: the model's shapes must be fixed, or data given with --eval or --calib";
  }
  return {};
}

const GateDef& gate_named(const std::string& name) {
  for (const GateDef& g : all_gates()) {
    if (g.name == name) return g;
  }
  throw Error(ErrorKind::Defect, "there is no gate '" + name + "'");
}

GateResult evaluate(const GateLimit& limit, const Report& report) {
  const GateDef& def = gate_named(limit.name);
  GateFigure figure = def.figure(report);
  GateResult out{.name = limit.name, .limit = limit.limit, .value = figure.value};
  std::string wanted = fmt::format("{} {:.6g}{} is wanted", def.at_most ? "at most" : "at least", limit.limit, def.unit);
  if (!figure.value) {
    out.message = fmt::format("{}; {}", wanted, advice(def.need));
    return out;
  }
  out.passed = def.at_most ? *figure.value <= limit.limit : *figure.value >= limit.limit;
  std::string of = figure.of.empty() ? "" : " of " + figure.of;
  out.message = fmt::format("{}{} is {:.6g}{}, {}", def.what, of, *figure.value, def.unit, wanted);
  return out;
}

}  // namespace

const std::vector<GateDef>& all_gates() {
  using enum GateNeed;
  static const std::vector<GateDef> gates{
      {"max_metric_drop", "Most that any metric may get worse by, in its own unit (top1 and top5 are shares: 0.005 is half a point).", true,
       {}, {}, false, Metric, "the drop", "", metric_drop},
      {"min_sqnr_db", "Least signal to quantization noise of any output, in decibels.", false, {}, {}, false, Comparison, "the SQNR", " dB",
       sqnr},
      {"min_cosine", "Least cosine similarity of any output.", false, -1, 1, false, Comparison, "the cosine", "", cosine},
      {"max_size_ratio", "Most that the output's bytes may be, as a share of the original's.", true, 0, {}, true, Size, "the size ratio", "",
       size},
      {"max_latency_ms", "Most that the optimized model's median latency may be, in milliseconds.", true, 0, {}, true, Latency,
       "the median latency", " ms", latency},
      {"max_latency_ratio", "Most that the optimized model's median latency may be, as a share of the original's.", true, 0, {}, true, Latency,
       "the latency ratio", "", ratio},
      {"max_slowdown",
       "Most that the optimized model's median latency may be, as a share of what the original's own times scatter up to: their 90th percentile, 1.05 "
       "of their median at most. 1: no slower.",
       true, 0, {}, true, Latency, "the latency beside the original's scatter", "", slowdown},
      {"min_speedup", "Least that the original's median latency is of the optimized model's.", false, 0, {}, true, Latency, "the speedup", "x",
       faster},
      {"max_memory_mb", "Most memory that running the optimized model may take at its peak, in MB of 1,000,000 bytes.", true, 0, {}, true,
       Memory, "the peak memory", " MB", memory},
      {"min_integer_macs", "Least share of the multiply-adds that is computed in integers.", false, 0, 1, false, Layers,
       "the integer share of MACs", "", integer_share},
  };
  return gates;
}

bool needs(const std::vector<GateLimit>& gates, GateNeed need) {
  return std::any_of(gates.begin(), gates.end(), [&](const GateLimit& g) { return gate_named(g.name).need == need; });
}

std::vector<GateResult> evaluate_gates(const std::vector<GateLimit>& gates, const Report& report) {
  std::vector<GateResult> out;
  for (const GateLimit& g : gates) out.push_back(evaluate(g, report));
  return out;
}

}  // namespace infopt
