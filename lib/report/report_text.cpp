#include <fmt/format.h>

#include "lib/report/format.h"
#include "lib/report/render.h"

namespace infopt {
namespace {

constexpr size_t kWorstLayers = 3, kMostWarnings = 8;

std::string line(std::string_view label, const std::string& text) { return fmt::format("{:<12}{}\n", label, text); }

// Names come from models: nothing in them may move a terminal's cursor.
std::string printable(std::string_view text) {
  std::string out = format::utf8(text);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return out;
}

std::string size_line(const Report& r) {
  if (!r.original) return {};
  std::string text = format::bytes(r.original->bytes);
  if (r.optimized) text += " → " + format::bytes(r.optimized->bytes);
  if (auto ratio = size_ratio(r)) text += fmt::format(" ({:.3f})", *ratio);
  return line("size", text);
}

/// Where nothing is quantized: QuantizeLinear and DequantizeLinear would count too.
std::string nodes_line(const Report& r) {
  if (r.passes.empty() || !r.layers.empty()) return {};
  return line("nodes", fmt::format("{} → {}", r.passes.front().nodes_before, r.passes.back().nodes_after));
}

std::string accuracy_lines(const Report& r) {
  std::string out;
  for (const Metric& m : r.metrics) {
    out += line("metric", fmt::format("{}: {} → {}", printable(m.name), format::number(m.original), format::number(m.optimized)));
  }
  if (auto sqnr = worst_sqnr_db(r)) {
    std::string cosine = fmt::format(", cosine {:.5f}", *worst_cosine(r));
    std::string of = r.outputs.size() > 1 ? fmt::format(" (worst of {} outputs)", r.outputs.size()) : "";
    out += line("SQNR", fmt::format("{}{}{}, {} samples", format::decibel(*sqnr), cosine, of, r.compared_samples));
  }
  return out;
}

std::string latency_line(const Report& r) {
  const Measured& m = r.measured;
  if (!m.optimized_latency) return {};
  const Latency& l = *m.optimized_latency;
  std::string text = m.original_latency ? format::milliseconds(m.original_latency->median_ms) + " → " : "";
  text += format::milliseconds(l.median_ms);
  if (auto faster = speedup(r)) text += fmt::format(" ({:.2f}x)", *faster);
  return line("latency", text + fmt::format(", median of {}, {} thread{}, batch {}", l.runs, l.threads, l.threads == 1 ? "" : "s", l.batch));
}

std::string forms_line(const Report& r) {
  std::string text;
  for (const MacShare& s : mac_shares(r)) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name_of(s.form), format::percent(s.share));
  return text.empty() ? text : line("MACs", text);
}

std::string search_lines(const Report& r) {
  if (!r.search) return {};
  std::string out;
  for (size_t i = 0; i < r.search->attempts.size(); ++i) {
    const Attempt& a = r.search->attempts[i];
    out += line(i == 0 ? "tried" : "", printable(fmt::format("{}{}. {}: {}{}", i == r.search->chosen ? "→ " : "  ", i + 1, a.name, format::figures(a), a.failure.empty() ? "; gates: " + format::missed(a) : "")));
  }
  return out + line("", printable(r.search->ended));
}

std::string pruned_lines(const Report& r) {
  std::string out;
  const auto removed = removed_share(r);
  if (removed) {
    size_t touched = 0;
    for (const PrunedLayer& p : r.pruned) touched += !p.pattern.empty();
    out += line("pruned", fmt::format("{} of the weights of {} layers, {} of them changed", format::percent(*removed), r.pruned.size(), touched));
  }
  if (!r.original_cost || !r.optimized_cost) return out;
  const auto pair = [](int64_t before, int64_t after) {
    std::string text = fmt::format("{} → {}", format::count(before), format::count(after));
    return before > 0 ? text + fmt::format(" ({:.3f})", static_cast<double>(after) / static_cast<double>(before)) : text;
  };
  if (r.original_cost->macs > 0) out += line("FLOPs", pair(2 * r.original_cost->macs, 2 * r.optimized_cost->macs));
  return out + line("parameters", pair(r.original_cost->parameters, r.optimized_cost->parameters));
}

std::string layer_lines(const Report& r) {
  std::string out;
  for (const LayerReport* l : format::worst_layers(r, kWorstLayers)) {
    out += line(out.empty() ? "worst" : "", fmt::format("{} ({}, {}): {}", printable(l->node), printable(l->op), name_of(l->form),
                                                         format::decibel(*format::layer_sqnr(*l))));
  }
  return out;
}

}  // namespace

std::string render_text(const Report& r) {
  std::string out;
  if (r.optimized) out += line("model", printable(r.original ? r.original->path + " → " + r.optimized->path : r.optimized->path));
  else if (r.original) out += line("model", printable(r.original->path));
  out += search_lines(r) + size_line(r) + nodes_line(r) + accuracy_lines(r) + latency_line(r) + pruned_lines(r) + forms_line(r) + layer_lines(r);
  for (size_t i = 0; i < r.warnings.size() && i < kMostWarnings; ++i) out += line("warning", printable(r.warnings[i]));
  if (r.warnings.size() > kMostWarnings) out += line("", fmt::format("and {} more warnings in the report", r.warnings.size() - kMostWarnings));
  for (const GateResult& g : r.gates) out += line(g.passed ? "gate met" : "NOT MET", printable(g.name + ": " + g.message));
  return out;
}

}  // namespace infopt
