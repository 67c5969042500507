#include <fmt/format.h>

#include "lib/report/format.h"
#include "lib/report/render.h"

namespace infopt {
namespace {

constexpr size_t kMostFloatLayers = 20, kWorstLayers = 10, kMostNotes = 20, kMostPruned = 200;

// Text in a table's cell: nothing in it is markup.
std::string cell(std::string_view text) {
  std::string out;
  for (char c : format::utf8(text)) {
    if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (static_cast<unsigned char>(c) < 0x20) out += ' ';
    else if (std::string_view("\\`*_[]|#~@").find(c) != std::string_view::npos) out += std::string("\\") + c;
    else out += c;
  }
  return out;
}

// A name, in code type. Within a code span only the backtick ends it, and only the bar ends a cell.
std::string code(std::string_view text) {
  std::string out = "`";
  for (char c : format::utf8(text)) {
    if (c == '`') out += '\'';
    else if (c == '|') out += "\\|";
    else if (static_cast<unsigned char>(c) < 0x20) out += ' ';
    else out += c;
  }
  return out.size() == 1 ? std::string() : out + "`";
}

std::string row(const std::vector<std::string>& cells) {
  std::string out = "|";
  for (const std::string& c : cells) out += " " + c + " |";
  return out + "\n";
}

// `columns` are left-aligned where their title ends in nothing, right-aligned where it ends in ':'.
std::string head(const std::vector<std::string>& columns) {
  std::string titles = "|", rule = "|";
  for (std::string c : columns) {
    bool right = c.ends_with(':');
    if (right) c.pop_back();
    titles += " " + c + " |";
    rule += right ? "---:|" : "---|";
  }
  return titles + "\n" + rule + "\n";
}

std::string verdict_line(const Report& r) {
  size_t failed = format::gates_failed(r), all = r.gates.size();
  if (!all) return "**No gates were set.**";
  if (!failed) return all == 1 ? "**Passed: the gate is met.**" : fmt::format("**Passed: all {} gates are met.**", all);
  return fmt::format("**Failed: {} of {} gate{} not met.**", failed, all, all == 1 ? " is" : "s are");
}

std::string gates_section(const Report& r) {
  if (r.gates.empty()) return {};
  std::string out = "\n## Gates\n\n" + head({"gate", "limit:", "value:", "result", "what was found"});
  for (const GateResult& g : r.gates) {
    out += row({code(g.name), format::number(g.limit), g.value ? format::number(*g.value) : "not measured", g.passed ? "met" : "**not met**",
                cell(g.message)});
  }
  return out;
}

std::string search_section(const Report& r) {
  if (!r.search) return {};
  const SearchReport& s = *r.search;
  std::string out = "\n## What was tried\n\n" + head({":", "recipe", "changed", "SQNR:", "drop:", "size:", "latency:", "gates", "time:"});
  auto shown = [](const std::optional<double>& v, const char* form) { return v ? fmt::format(fmt::runtime(form), *v) : std::string("–"); };
  for (size_t i = 0; i < s.attempts.size(); ++i) {
    const Attempt& a = s.attempts[i];
    std::string gates = a.failure.empty() ? format::missed(a) : "nothing came of it: " + a.failure;
    out += row({i == s.chosen ? fmt::format("**{}**", i + 1) : std::to_string(i + 1), cell(a.name), cell(a.changed), a.sqnr_db ? format::decibel(*a.sqnr_db) : "–",
                shown(a.metric_drop, "{:+.4g}"), shown(a.size_ratio, "{:.3f}"), shown(a.latency_ratio, "{:.3f}"), cell(gates), format::seconds(a.seconds)});
  }
  out += "\n" + cell(s.ended) + "\n";
  if (s.by_measurement) out += "\nLatencies or memory had a say: another run may choose otherwise.\n";
  return out;
}

std::string latency_rows(const Report& r) {
  const Measured& m = r.measured;
  if (!m.original_latency && !m.optimized_latency) return {};
  const Latency& any = m.optimized_latency ? *m.optimized_latency : *m.original_latency;
  auto shown = [](const std::optional<Latency>& l, double Latency::* field) { return l ? format::milliseconds((*l).*field) : std::string("–"); };
  auto ratio = latency_ratio(r);
  std::string out = row({fmt::format("latency, median of {} ({} thread{}, batch {})", any.runs, any.threads, any.threads == 1 ? "" : "s", any.batch),
                         shown(m.original_latency, &Latency::median_ms), shown(m.optimized_latency, &Latency::median_ms),
                         ratio ? fmt::format("{:.3f}", *ratio) : "–"});
  out += row({"latency, P90", shown(m.original_latency, &Latency::p90_ms), shown(m.optimized_latency, &Latency::p90_ms), ""});
  out += row({"latency, P99", shown(m.original_latency, &Latency::p99_ms), shown(m.optimized_latency, &Latency::p99_ms), ""});
  out += row({"first run", shown(m.original_latency, &Latency::first_run_ms), shown(m.optimized_latency, &Latency::first_run_ms), ""});
  return out;
}

std::string memory_row(const Measured& m) {
  if (!m.original_peak_memory && !m.optimized_peak_memory) return {};
  auto shown = [](const std::optional<int64_t>& v) { return v ? format::bytes(*v) : std::string("–"); };
  return row({"peak memory", shown(m.original_peak_memory), shown(m.optimized_peak_memory), ""});
}

std::string cost_rows(const Report& r) {
  const auto row_of = [&](const char* title, int64_t ModelCost::* field, int64_t times) {
    const auto shown = [&](const std::optional<ModelCost>& c) { return c ? format::count(times * (*c).*field) : std::string("–"); };
    const bool both = r.original_cost && r.optimized_cost && (*r.original_cost).*field > 0;
    return row({title, shown(r.original_cost), shown(r.optimized_cost), both ? fmt::format("{:.3f}", static_cast<double>((*r.optimized_cost).*field) / static_cast<double>((*r.original_cost).*field)) : "–"});
  };
  return row_of("FLOPs, by shapes", &ModelCost::macs, 2) + row_of("parameters, by shapes", &ModelCost::parameters, 1);
}

std::string figures_section(const Report& r) {
  std::string rows;
  if (r.original || r.optimized) {
    auto size = [](const std::optional<ModelFile>& m) { return m ? format::bytes(m->bytes) : std::string("–"); };
    auto ratio = size_ratio(r);
    rows += row({"size", size(r.original), size(r.optimized), ratio ? fmt::format("{:.3f}", *ratio) : "–"});
  }
  if (r.original_cost || r.optimized_cost) rows += cost_rows(r);
  for (const Metric& m : r.metrics) {
    rows += row({cell(m.name), format::number(m.original), format::number(m.optimized), fmt::format("{:+.6g}", m.optimized - m.original)});
  }
  rows += latency_rows(r) + memory_row(r.measured);
  return rows.empty() ? rows : "\n## Figures\n\n" + head({"", "original:", "optimized:", "ratio or change:"}) + rows;
}

std::string outputs_section(const Report& r) {
  if (r.outputs.empty()) return {};
  std::string on = r.compared_data.empty() ? "" : " of " + code(r.compared_data);
  std::string out = fmt::format("\n## Outputs beside the original's\n\nOver {} samples{}.\n\n", r.compared_samples, on);
  out += head({"output", "SQNR:", "cosine:", "largest error:"});
  for (const OutputReport& o : r.outputs) {
    out += row({code(o.name), format::decibel(o.sqnr_db), fmt::format("{:.6f}", o.cosine), format::number(o.max_abs_error)});
  }
  return out;
}

std::string forms_section(const Report& r) {
  std::vector<MacShare> shares = mac_shares(r);
  if (shares.empty()) return {};
  std::string out = "\n## Forms\n\n" + head({"form", "share of MACs:", "layers:", "weights:"});
  for (const MacShare& s : shares) {
    out += row({std::string(name_of(s.form)), format::percent(s.share), std::to_string(s.layers), std::to_string(s.weight_elements)});
  }
  return out;
}

std::string float_section(const Report& r) {
  std::vector<const LayerReport*> layers = format::float_layers(r);
  if (layers.empty()) return {};
  std::string out = "\n## Layers left in float\n\n" + head({"layer", "operator", "form", "MACs:", "why", "what it costs"});
  for (size_t i = 0; i < layers.size() && i < kMostFloatLayers; ++i) {
    const LayerReport& l = *layers[i];
    out += row({code(l.node), cell(l.op), std::string(name_of(l.form)), std::to_string(l.macs), cell(l.reason), cell(l.cost)});
  }
  if (layers.size() > kMostFloatLayers) out += fmt::format("\nAnd {} more; report.json lists them all.\n", layers.size() - kMostFloatLayers);
  return out;
}

std::string worst_section(const Report& r) {
  std::vector<const LayerReport*> layers = format::worst_layers(r, kWorstLayers);
  if (layers.empty()) return {};
  auto shown = [](const std::optional<double>& v) { return v ? format::decibel(*v) : std::string("–"); };
  std::string out = "\n## Worst layers\n\n" + head({"layer", "operator", "form", "local:", "accumulated:", "estimated:", "weights:"});
  for (const LayerReport* l : layers) {
    out += row({code(l->node), cell(l->op), std::string(name_of(l->form)), shown(l->local_sqnr_db), shown(l->accumulated_sqnr_db),
                shown(l->estimated_sqnr_db), shown(l->weight_sqnr_db)});
  }
  return out;
}

std::string shrunk(const std::string& before, const std::string& after) { return before.empty() || before == after ? cell(after) : cell(before) + " → " + cell(after); }

std::string pruned_section(const Report& r) {
  if (r.pruned.empty()) return {};
  std::string out = "\n## Pruned\n\n";
  if (const auto removed = removed_share(r)) out += fmt::format("{} of these layers' weights went.\n\n", format::percent(*removed));
  out += head({"layer", "operator", "pattern", "by", "shape", "weights:", "stored:", "zeros:", "removed:", "output:", "why"});
  for (size_t i = 0; i < r.pruned.size() && i < kMostPruned; ++i) {
    const PrunedLayer& p = r.pruned[i];
    out += row({code(p.node), cell(p.op), p.pattern.empty() ? "–" : cell(p.pattern), cell(p.algorithm), shrunk(p.shape_before, p.shape_after), std::to_string(p.weights_before),
                std::to_string(p.weights_after), std::to_string(p.zeros), format::percent(p.removed()), p.output_sqnr_db ? format::decibel(*p.output_sqnr_db) : "–", cell(p.reason)});
  }
  if (r.pruned.size() > kMostPruned) out += fmt::format("\nAnd {} more; report.json lists them all.\n", r.pruned.size() - kMostPruned);
  return out;
}

std::string check_cell(const PassReport& p) {
  if (!p.check) return "not checked";
  return p.check->ok ? fmt::format("held ({:.2g})", p.check->max_error) : "**broken**: " + cell(p.check->message);
}

std::string passes_section(const Report& r) {
  if (r.passes.empty()) return {};
  std::string out = fmt::format("\n<details>\n<summary>Passes ({})</summary>\n\n", r.passes.size());
  out += head({"pass", "contract", "check", "nodes:", "time:"});
  for (const PassReport& p : r.passes) {
    out += row({code(p.name), cell(p.contract), check_cell(p), fmt::format("{} → {}", p.nodes_before, p.nodes_after), format::seconds(p.seconds)});
  }
  for (const PassReport& p : r.passes) {
    const std::vector<std::string>& notes = p.edits.notes;
    if (!notes.empty()) out += "\n" + code(p.name) + ":\n\n";
    for (size_t i = 0; i < notes.size() && i < kMostNotes; ++i) out += "- " + cell(notes[i]) + "\n";
    if (notes.size() > kMostNotes) out += fmt::format("- and {} more\n", notes.size() - kMostNotes);
  }
  return out + "\n</details>\n";
}

std::string warnings_section(const Report& r) {
  std::string out;
  for (const std::string& w : r.warnings) out += "- " + cell(w) + "\n";
  for (const UnknownOperator& u : r.unknown_operators) {
    out += fmt::format("- operator {} is unknown to infopt and passed through untouched ({} node{})\n", code(u.op), u.count, u.count == 1 ? "" : "s");
  }
  return out.empty() ? out : "\n## Warnings\n\n" + out;
}

// The recipe in a fence longer than any run of backticks in it.
std::string recipe_section(const Report& r) {
  if (r.recipe.empty()) return {};
  std::string fence = "```";
  while (r.recipe.find(fence) != std::string::npos) fence += '`';
  return fmt::format("\n<details>\n<summary>Recipe</summary>\n\n{}yaml\n{}{}{}\n\n</details>\n", fence, format::utf8(r.recipe),
                     r.recipe.ends_with('\n') ? "" : "\n", fence);
}

std::string made_line(const Report& r) {
  std::string out = "\nMade by infopt " + cell(r.infopt_version);
  if (!r.target.empty()) out += ", target " + cell(r.target);
  if (!r.device.empty()) out += ", on " + cell(r.device);
  if (r.calibration) {
    const CalibrationReport& c = *r.calibration;
    out += fmt::format(", calibrated by {} on {} samples of {}", cell(c.method), c.samples, code(c.source));
  }
  return out + ".\n";
}

}  // namespace

std::string render_markdown(const Report& r) {
  std::string out = verdict_line(r);
  if (r.original) out += " " + code(r.original->path);
  if (r.optimized) out += " → " + code(r.optimized->path);
  out += "\n" + gates_section(r) + search_section(r) + figures_section(r) + outputs_section(r) + forms_section(r) + float_section(r) + worst_section(r) + pruned_section(r);
  return out + warnings_section(r) + passes_section(r) + recipe_section(r) + made_line(r);
}

}  // namespace infopt
