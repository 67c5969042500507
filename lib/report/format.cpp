#include "lib/report/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace infopt::format {
namespace {

// The length of the UTF-8 sequence at `text`'s begin, 0 where it isn't one (overlong forms and surrogates aren't: RFC 3629).
size_t sequence_length(std::string_view text) {
  auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  auto follows = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    bool allowed = (first != 0xE0 || byte(1) >= 0xA0) && (first != 0xED || byte(1) < 0xA0);
    return allowed && follows(1) && follows(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    bool allowed = (first != 0xF0 || byte(1) >= 0x90) && (first != 0xF4 || byte(1) < 0x90);
    return allowed && follows(1) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

std::string utf8(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    size_t length = sequence_length(text);
    if (length) out += text.substr(0, length);
    else out += "\xEF\xBF\xBD";
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

std::string bytes(int64_t count) {
  auto v = static_cast<double>(count);
  if (v < 1e3) return fmt::format("{} B", count);
  if (v < 1e6) return fmt::format("{:.1f} kB", v / 1e3);
  if (v < 1e9) return fmt::format("{:.1f} MB", v / 1e6);
  return fmt::format("{:.2f} GB", v / 1e9);
}

std::string count(int64_t n) {
  const auto v = static_cast<double>(n);
  if (v < 1e4) return std::to_string(n);
  if (v < 1e6) return fmt::format("{:.1f} k", v / 1e3);
  if (v < 1e9) return fmt::format("{:.2f} M", v / 1e6);
  return fmt::format("{:.2f} G", v / 1e9);
}

std::string decibel(double value) {
  if (std::isinf(value)) return value > 0 ? "∞ dB" : "−∞ dB";
  return std::isnan(value) ? "not a number" : fmt::format("{:.1f} dB", value);
}

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }
std::string number(double value) { return fmt::format("{:.6g}", value); }
std::string seconds(double value) { return fmt::format("{:.2f} s", value); }

std::string milliseconds(double value) {
  if (value >= 100) return fmt::format("{:.0f} ms", value);
  return fmt::format(fmt::runtime(value >= 10 ? "{:.1f} ms" : value >= 1 ? "{:.2f} ms" : "{:.3f} ms"), value);
}

std::string missed(const Attempt& a) {
  std::string out;
  for (const std::string& gate : a.missed) out += (out.empty() ? "" : ", ") + gate;
  return out.empty() ? "all met" : out + " not met";
}

std::string figures(const Attempt& a) {
  if (!a.failure.empty()) return "nothing came of it: " + a.failure;
  std::string out;
  auto add = [&](const std::string& text) { out += (out.empty() ? "" : ", ") + text; };
  if (a.sqnr_db) add(decibel(*a.sqnr_db));
  if (a.metric_drop) add(fmt::format("drop {:.4g}", *a.metric_drop));
  if (a.size_ratio) add(fmt::format("size {:.3f}", *a.size_ratio));
  if (a.latency_ratio) add(fmt::format("latency {:.3f}", *a.latency_ratio));
  return out;
}

std::optional<double> layer_sqnr(const LayerReport& layer) {
  if (layer.local_sqnr_db) return layer.local_sqnr_db;
  return layer.accumulated_sqnr_db ? layer.accumulated_sqnr_db : layer.estimated_sqnr_db;
}

std::vector<const LayerReport*> worst_layers(const Report& report, size_t most) {
  std::vector<const LayerReport*> out;
  for (const LayerReport& layer : report.layers) {
    std::optional<double> sqnr = layer_sqnr(layer);
    if (sqnr && !(std::isinf(*sqnr) && *sqnr > 0)) out.push_back(&layer);
  }
  auto key = [](const LayerReport* l) { return std::isnan(*layer_sqnr(*l)) ? -HUGE_VAL : *layer_sqnr(*l); };
  std::stable_sort(out.begin(), out.end(), [&](const LayerReport* a, const LayerReport* b) { return key(a) < key(b); });
  if (out.size() > most) out.resize(most);
  return out;
}

std::vector<const LayerReport*> float_layers(const Report& report) {
  std::vector<const LayerReport*> out;
  for (const LayerReport& layer : report.layers) {
    if (layer.form == LayerForm::Float32) out.push_back(&layer);
  }
  std::stable_sort(out.begin(), out.end(), [](const LayerReport* a, const LayerReport* b) { return a->macs > b->macs; });
  return out;
}

std::string verdict(const Report& report) {
  if (report.gates.empty()) return "no gates";
  return all_gates_passed(report) ? "passed" : "failed";
}

size_t gates_failed(const Report& report) {
  return static_cast<size_t>(std::count_if(report.gates.begin(), report.gates.end(), [](const GateResult& g) { return !g.passed; }));
}

}  // namespace infopt::format
